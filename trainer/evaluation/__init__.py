"""How systems are compared: full-catalogue ranking, intervals over users, slices, reports."""

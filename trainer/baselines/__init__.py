"""Systems without training: what everything that is learned has to beat."""

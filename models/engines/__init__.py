"""Language models behind the ProfileEncoder port; each engine's libraries load with its module."""

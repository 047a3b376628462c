"""Language models behind the ProfileEncoder port."""

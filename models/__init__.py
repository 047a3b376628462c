"""What needs no Kafka: the messages, and the sciences of profile, ranking and release.

schemas, settings, errors, ports and identity are for everybody; profile writes and checks
profiles; ranking makes lists with reasons; release keeps model files; engines run the models.
"""

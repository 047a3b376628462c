"""Everything that lives on Kafka: four roles, and what they share.

tracker keeps users' states and serves lists; profiler writes profiles; indexer owns the vectors;
recorder keeps the event log. windows, triggers and partition_clock are their pure core, codec and
dead_letters their way with bad input, kafka their clients, releases their switch of models;
replay, rebuild and parity derive the state again from the event log.
"""

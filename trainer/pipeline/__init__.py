"""One training run, from the log to a release in service.

record is what is known of a run and the states that it moves through; next_step says, from the
records and from what stands, what comes next and why; runner does it; run wires that to the event
log, the store and the running system. candidate learns, judges and writes a release; parent is the
release that it starts from; release_writer writes it; run_key names settings; outcome and
job_metrics are what people and Prometheus see; schedule repeats.
"""

"""One training run, from the log to a release in service.

run is the whole; plan, outcome, run_key and json_state are what it remembers; parent is the
release that it starts from; training learns and judges; release_writer writes the release;
schedule repeats.
"""

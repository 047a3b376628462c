"""The recorder: every logged topic into the event log, each offset exactly once."""

"""Faults injected into the whole of Palate while events flow, and what must be true afterwards.

A producer keeps a ledger of what Kafka has acknowledged (`traffic`, `ledger`); a naive oracle says
what every user's state must be (`oracle`); a checker compares (`checker`) what Kafka, the event log
and the tracker's changelog hold (`mirror`, `evidence`). `kinds/` holds the faults, `schedule` draws
them from a seed, `driver` injects and heals them on a stack of its own (`system`). See
docs/faults.md.
"""

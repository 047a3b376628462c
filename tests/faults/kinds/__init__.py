"""The faults, by what they strike. Importing this package registers all of them."""

from tests.faults.kinds import broker, inputs, machine, processes, storage

__all__ = ["broker", "inputs", "machine", "processes", "storage"]

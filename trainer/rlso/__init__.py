"""RLSO alone, on a folder of data: `python -m trainer.rlso`."""

"""The tracker: keeps every user's state, asks for profiles, serves recommendations."""

import os

# Before anything loads numpy: ranking a few users is a small product, for which waking a thread
# per core costs four times the processor time that it saves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

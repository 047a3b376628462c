"""The tracker: keeps every user's state, asks for profiles, serves recommendations.

`role` puts it together. `runtime` (Faust) delivers batches, `delivery` works each until it is
committed, `intake` applies its records to the state by the rules of `reducer`, `refusals` has
what is not applied; `gaps` and `passed_over` read what was not delivered. `assignment` and
`partition_takeover` take partitions over and give them back, `partition_writer` and `local_store`
write them, `working_set` holds what memory has of them. `recommendations`, `profile_requests` and
`release_migration` do what is owed to users, in the order of `scheduling`.
"""

import os

# Before anything loads numpy: ranking a few users is a small product, for which waking a thread
# per core costs four times the processor time that it saves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

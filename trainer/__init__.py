"""Learning: replay the event log, train by RLSO and CL, evaluate, gate and write releases."""

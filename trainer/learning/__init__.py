"""Everything that needs torch: the learning phases, and the systems that they make.

loop.py resumes, steps, validates, keeps the best and writes checkpoints. What runs in it is a task:
warm_start.py, contrastive.py (CL, with its pairs, InfoNCE and the text tower), rlso.py (with its
objectives, rollouts and the policy) and sasrec_training.py. stages.py runs the phases of a
training one after another; builders.py makes the systems that evaluation compares.
"""

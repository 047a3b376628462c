"""The gate: releases write and rank (release_evaluator), are measured (measurement) and judged
(decision).
"""

"""Intervals by resampling users: sessions of one user are not independent of each other.

All functions take one value per user (the mean over that user's sessions); `per_user` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # [users]
_CELLS: Final = 4_000_000  # resampled values held at once


class Interval(NamedTuple):
    """A mean with its bootstrap interval."""

    mean: float
    low: float
    high: float


def per_user(users: Sequence[str], values: NDArray[np.floating]) -> Values:
    """[users] mean of each user's sessions, in ascending order of user id."""
    names, numbers = np.unique(np.array(users, object), return_inverse=True)
    counts = np.bincount(numbers, minlength=len(names))
    sums = np.bincount(numbers, np.asarray(values, np.float64), minlength=len(names))
    return sums / np.maximum(counts, 1)


def resampled_means(values: Values, resamples: int, seed: int) -> Values:
    """[resamples] means of users drawn with replacement."""
    random = np.random.default_rng(seed)
    at_once = max(1, _CELLS // max(1, len(values)))
    means = [
        values[
            random.integers(len(values), size=(min(at_once, resamples - done), len(values)))
        ].mean(axis=1)
        for done in range(0, resamples, at_once)
    ]
    return np.concatenate(means)


def interval(
    values: Values, *, confidence: float = 0.95, resamples: int = 1_000, seed: int = 0
) -> Interval:
    """Mean and two-sided percentile interval. NaN for no users."""
    if not len(values):
        return Interval(np.nan, np.nan, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled_means(values, resamples, seed), (tail, 1 - tail))
    return Interval(float(values.mean()), float(low), float(high))


def lower_bound(differences: Values, confidence: float, resamples: int, *, seed: int = 0) -> float:
    """One-sided lower bound of a mean difference of paired values; NaN for no users."""
    if not len(differences):
        return float("nan")
    return float(np.quantile(resampled_means(differences, resamples, seed), 1 - confidence))

"""The gate: may this release serve? A pure decision over figures measured side by side.

All compared releases are measured on the same users, so differences are paired, and in a window
after what any of them was trained on. Comparing with the anchored baseline beside the serving
release keeps many small losses, each within its margin, from adding up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.training_settings import GateSettings
from trainer.evaluation.bootstrap import lower_bound
from trainer.hacking import WatchFigures

DAY_MS: Final = 86_400_000
PerUser = NDArray[np.float64]  # [users] the gated metric, one value per user, in one order


@dataclass(frozen=True, slots=True)
class Measured:
    """What one release did on the gate's users."""

    release: str
    ranking: PerUser  # as it would be served
    profile_only: PerUser  # ranked by the profile's vector alone
    shuffled: PerUser  # the same with another user's profile
    grounding: PerUser  # share of the model's statements that events bear out
    tokens: float  # mean length of a profile
    watch: WatchFigures


@dataclass(frozen=True, slots=True)
class Window:
    """When the gate's users chose what is ranked, beside what compared releases learned from.

    Event times, epoch ms; 0 for a release that has learned nothing.
    """

    begins: int
    serving_trained: int  # the end of what it learned from
    anchor_trained: int


@dataclass(frozen=True, slots=True)
class Check:
    """One rule of the gate with what it found."""

    name: str
    passed: bool
    found: float
    limit: float
    said: str  # for people; for one that failed, the reason

    def __str__(self) -> str:
        return f"{self.name}: {self.said} ({self.found:+.4f}, limit {self.limit:+.4f})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the candidate may serve, and every rule's finding."""

    candidate: str
    serving: str
    anchor: str
    users: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """All rules are kept."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not; empty if it passed."""
        return tuple(str(check) for check in self.checks if not check.passed)


def judge(
    candidate: Measured,
    serving: Measured,
    anchor: Measured,
    settings: GateSettings,
    window: Window,
) -> Verdict:
    """Apply every rule; none is skipped because another failed."""
    checks = (
        _enough_users(candidate, settings),
        _unseen_window(serving, anchor, window),
        *_not_worse(candidate, serving, anchor, settings),
        _shuffled_falls(candidate, settings),
        *_profiles_kept(candidate, serving, settings),
        *_not_hacked(candidate, serving, settings),
    )
    users = len(candidate.ranking)
    return Verdict(candidate.release, serving.release, anchor.release, users, checks)


def _enough_users(candidate: Measured, settings: GateSettings) -> Check:
    users = len(candidate.ranking)
    return Check(
        "users",
        users >= settings.min_users,
        users,
        settings.min_users,
        "users in the gate's window",
    )


def _unseen_window(serving: Measured, anchor: Measured, window: Window) -> Check:
    """A release ranks what it has learned from too well; imported history can move the window."""
    trained, release = max(
        (window.serving_trained, serving.release), (window.anchor_trained, anchor.release)
    )
    days = (window.begins - trained) / DAY_MS if trained else 0.0
    return Check(
        "window",
        days >= 0,
        days,
        0.0,
        f"days from the end of what {release} was trained on to the gate's window",
    )


def _not_worse(
    candidate: Measured, serving: Measured, anchor: Measured, settings: GateSettings
) -> Iterator[Check]:
    rules = (("serving", serving, settings.margin), ("anchor", anchor, settings.anchor_margin))
    for name, other, margin in rules:
        differences = candidate.ranking - other.ranking
        bound = _bound(differences, settings)
        said = f"lower bound of {settings.metric} minus that of {other.release}"
        told = _what_can_be_told(differences, bound, margin)
        yield Check(name, bound > -margin, bound, -margin, f"{said}; {told}")


def _what_can_be_told(differences: PerUser, bound: float, margin: float) -> str:
    """How small a loss so many users show: with too few of them, equal releases are held back."""
    if not len(differences):
        return "without users nothing can be told"
    least = mean(differences) - bound
    said = f"with {len(differences)} users a loss of {least:.4f} can be told"
    blind = ", which is more than the margin: more users are needed (train.gate.users)"
    return said + blind if least > margin else said


def _shuffled_falls(candidate: Measured, settings: GateSettings) -> Check:
    """With another user's profile ranking must fall, or the profile says nothing of the user."""
    least = settings.shuffled_loss
    bound = _bound(candidate.profile_only - candidate.shuffled, settings)
    said = "lower bound of what is lost with another user's profile"
    return Check("shuffled profile", bound > least, bound, least, said)


def _profiles_kept(
    candidate: Measured, serving: Measured, settings: GateSettings
) -> Iterator[Check]:
    before, now = mean(serving.grounding), mean(candidate.grounding)
    fall = before - now
    yield Check(
        "grounding",
        fall <= settings.grounding_drop,
        fall,
        settings.grounding_drop,
        f"grounding went from {before:.3f} to {now:.3f}",
    )
    change = abs(candidate.tokens - serving.tokens) / max(serving.tokens, 1.0)
    yield Check(
        "length",
        change <= settings.length_change,
        change,
        settings.length_change,
        f"profiles went from {serving.tokens:.0f} to {candidate.tokens:.0f} tokens",
    )


def _not_hacked(candidate: Measured, serving: Measured, settings: GateSettings) -> Iterator[Check]:
    """What a policy does that has found a way to please the reward and nobody else."""
    limits: tuple[tuple[str, float, Callable[[float, float], float]], ...] = (
        ("copied", settings.copied_rise, lambda now, before: now - before),
        ("repeated", settings.repeated_rise, lambda now, before: now - before),
        ("commonest", settings.commonest_rise, lambda now, before: now - before),
        ("entropy", settings.entropy_drop, lambda now, before: (before - now) / max(before, 1e-9)),
    )
    for name, limit, change_of in limits:
        now, before = getattr(candidate.watch, name), getattr(serving.watch, name)
        change = change_of(now, before)
        said = f"{name} went from {before:.3f} to {now:.3f}"
        yield Check(name, change <= limit, change, limit, said)


def mean(values: PerUser) -> float:
    """0 for no users."""
    return float(values.mean()) if len(values) else 0.0


def _bound(differences: PerUser, settings: GateSettings) -> float:
    """One-sided lower bound; minus infinity for no users, so that nothing passes unseen."""
    if not len(differences):
        return float("-inf")
    return lower_bound(differences, settings.confidence, settings.resamples, seed=settings.seed)

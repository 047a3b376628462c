"""The gate: may this release serve? A pure decision over figures measured side by side.

All compared releases are measured on the same users, so differences are paired, and in a window
after what any of them was trained on. Comparing with an anchor beside the serving release, in
ranking and in what the profiles are, keeps many small losses, each within its margin, from adding
up. The anchor stands still but for gains and rollbacks: a release that surely ranks above it, and
serves, is the next one (trainer/pipeline/outcome.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.training_settings import GateSettings
from trainer.evaluation.bootstrap import lower_bound
from trainer.reward.reward_hacking import WatchFigures

DAY_MS: Final = 86_400_000
PerUser = NDArray[np.float64]  # [users] the gated metric, one value per user, in one order


@dataclass(frozen=True, slots=True)
class Measured:
    """What one release did on the gate's users."""

    release: str
    ranking: PerUser  # as it would be served
    profile_only: PerUser  # ranked by the vector of the model's own words alone
    shuffled: PerUser  # the same with what it wrote of another user
    grounding: PerUser  # share of the model's statements that events bear out
    tokens: float  # mean length of a profile
    watch: WatchFigures


# A figure that must not change by more than a limit: name, limit, change(before, now), figure.
_Rule = tuple[str, float, Callable[[float, float], float], Callable[[Measured], float]]


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

    def ranks_above(self, release: str) -> bool:
        """Whether the candidate surely ranks better than a release it was compared with."""
        compared = {"serving": self.serving, "anchor": self.anchor}
        return any(compared.get(check.name) == release and check.found > 0 for check in self.checks)


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
        *(_kept(rule, candidate, serving, anchor) for rule in _rules(settings)),
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


def _rules(settings: GateSettings) -> tuple[_Rule, ...]:
    """What profiles must not lose, and what a policy does that has found a way to please the
    reward and nobody else."""

    def rise(before: float, now: float) -> float:
        return now - before

    def fall(before: float, now: float) -> float:
        return before - now

    def change(before: float, now: float) -> float:
        return abs(now - before) / max(before, 1.0)

    def relative_fall(before: float, now: float) -> float:
        return (before - now) / max(before, 1e-9)

    return (
        ("grounding", settings.grounding_drop, fall, lambda one: mean(one.grounding)),
        ("length", settings.length_change, change, lambda one: one.tokens),
        ("copied", settings.copied_rise, rise, lambda one: one.watch.copied),
        ("repeated", settings.repeated_rise, rise, lambda one: one.watch.repeated),
        ("commonest", settings.commonest_rise, rise, lambda one: one.watch.commonest),
        ("entropy", settings.entropy_drop, relative_fall, lambda one: one.watch.entropy),
    )


def _kept(rule: _Rule, candidate: Measured, serving: Measured, anchor: Measured) -> Check:
    """Against the release from which the figure has changed more; the limit is that of one step,
    so many steps take it no further from the anchor than one may."""
    name, limit, change_of, figure_of = rule
    now = figure_of(candidate)
    change, before, release = max(
        (change_of(figure_of(one), now), figure_of(one), one.release) for one in (serving, anchor)
    )
    said = f"{name} went from {before:.4g}, that of {release}, to {now:.4g}"
    return Check(name, change <= limit, change, limit, said)


def mean(values: PerUser) -> float:
    """0 for no users."""
    return float(values.mean()) if len(values) else 0.0


def _bound(differences: PerUser, settings: GateSettings) -> float:
    """One-sided lower bound; minus infinity for no users, so that nothing passes unseen."""
    if not len(differences):
        return float("-inf")
    return lower_bound(differences, settings.confidence, settings.resamples, seed=settings.seed)

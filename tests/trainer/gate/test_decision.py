"""The gate: which releases may serve, and that every reason is said."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training_settings import GateSettings
from trainer.gate.decision import DAY_MS, Measured, Verdict, Window, judge
from trainer.reward.reward_hacking import WatchFigures

USERS = 400
SETTINGS = GateSettings(resamples=500)
WINDOW = Window(begins=30 * DAY_MS, serving_trained=20 * DAY_MS, anchor_trained=0)
WATCH = WatchFigures(copied=0.2, tokens=60.0, entropy=8.0, repeated=0.05, commonest=0.02)


def measured(release: str, shift: float = 0.0, seed: int = 0) -> Measured:
    """A release whose users' NDCG lie around .1 + shift; the shuffled profile loses .05."""
    ranking = np.random.default_rng(seed).uniform(0.0, 0.2, USERS) + shift
    return Measured(
        release=release,
        ranking=ranking,
        profile_only=ranking,
        shuffled=ranking - 0.05,
        grounding=np.full(USERS, 0.9),
        tokens=60.0,
        watch=WATCH,
    )


def verdict(candidate: Measured, serving: Measured | None = None) -> Verdict:
    return judge(candidate, serving or measured("old"), measured("first"), SETTINGS, WINDOW)


def failed(found: Verdict) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


def test_a_release_that_ranks_better_passes() -> None:
    found = verdict(measured("new", shift=0.01))

    assert found.passed
    assert found.reasons == ()
    assert found.users == USERS


def test_an_equal_release_passes_within_the_margin() -> None:
    assert verdict(measured("new")).passed


def test_a_release_that_ranks_worse_than_the_margin_stays_with_the_reason() -> None:
    found = verdict(measured("new", shift=-0.005))

    assert failed(found) == {"serving"}
    assert "lower bound of ndcg@10 minus that of old" in found.reasons[0]


def test_small_losses_within_the_margin_do_not_add_up_past_the_anchor() -> None:
    """Each step loses .0025, less than the margin of .004; the third is .0075 below the anchor."""
    endings = [
        judge(
            measured("new", shift=-0.0025 * step),
            measured("old", shift=-0.0025 * (step - 1)),
            measured("first"),
            SETTINGS,
            WINDOW,
        ).passed
        for step in (1, 2, 3)
    ]

    assert endings == [True, True, False]


def test_noise_between_users_widens_the_bound_so_that_an_unsure_candidate_stays() -> None:
    """Equal on average, but as often far worse as far better: nobody can say."""
    unsure = measured("new")
    unsure = replace(unsure, ranking=np.random.default_rng(1).permutation(unsure.ranking))

    assert "serving" in failed(verdict(unsure))


def noisy(users: int, seed: int) -> Measured:
    """Equal to `measured("old")` but for noise of .048, as between two releases on data/sample."""
    noise = np.random.default_rng(seed).normal(0.0, 0.048, users)
    flat = np.zeros(users)
    return replace(measured("new"), ranking=noise, profile_only=flat + 1, shuffled=flat)


@pytest.mark.parametrize(("users", "least", "most"), [(200, 0.0, 0.5), (1_000, 0.7, 0.95)])
def test_an_equal_release_mostly_passes_where_there_are_users_enough(
    users: int, least: float, most: float
) -> None:
    settings = GateSettings(resamples=200)
    assert settings.users == 1_000
    old = replace(measured("old"), ranking=np.zeros(users))
    passed = [judge(noisy(users, n), old, old, settings, WINDOW).passed for n in range(60)]

    assert least <= np.mean(passed) <= most


def test_the_gate_says_how_small_a_loss_its_users_can_show() -> None:
    """1.645 · .048 / √n: .0056 with 200 users, .0025 with 1,000."""
    said = {}
    for users in (200, 1_000):
        old = replace(measured("old"), ranking=np.zeros(users))
        checks = judge(noisy(users, 0), old, old, GateSettings(), WINDOW).checks
        said[users] = next(check.said for check in checks if check.name == "serving")

    assert re.search(r"with 200 users a loss of 0\.005\d can be told, which is more", said[200])
    assert re.search(r"with 1000 users a loss of 0\.002\d can be told$", said[1_000])


def test_too_few_users_decide_nothing() -> None:
    settings = SETTINGS.model_copy(update={"min_users": USERS + 1})
    found = judge(measured("new", 0.1), measured("old"), measured("first"), settings, WINDOW)

    assert failed(found) == {"users"}


def test_no_user_at_all_fails_every_comparison_without_an_error() -> None:
    none = np.empty(0)
    empty = replace(measured("new"), ranking=none, profile_only=none, shuffled=none, grounding=none)

    assert {"users", "serving", "anchor", "shuffled profile"} <= failed(
        judge(empty, empty, empty, SETTINGS, WINDOW)
    )


def test_profiles_that_could_be_anybodys_fail_the_shuffled_control() -> None:
    candidate = measured("new", shift=0.01)
    candidate = replace(candidate, shuffled=candidate.profile_only)

    assert failed(verdict(candidate)) == {"shuffled profile"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"grounding": np.full(USERS, 0.87)}, "grounding"),
        ({"tokens": 95.0}, "length"),
        ({"tokens": 25.0}, "length"),
        ({"watch": replace(WATCH, copied=0.4)}, "copied"),
        ({"watch": replace(WATCH, repeated=0.2)}, "repeated"),
        ({"watch": replace(WATCH, commonest=0.3)}, "commonest"),
        ({"watch": replace(WATCH, entropy=6.0)}, "entropy"),
    ],
)
def test_a_better_ranking_does_not_buy_worse_profiles(change: dict[str, object], rule: str) -> None:
    found = verdict(replace(measured("new", shift=0.05), **change))  # type: ignore[arg-type]

    assert failed(found) == {rule}
    assert rule in found.reasons[0]


@pytest.mark.parametrize(
    ("window", "passed"),
    [
        (Window(begins=20 * DAY_MS, serving_trained=20 * DAY_MS, anchor_trained=0), True),
        (Window(begins=19 * DAY_MS, serving_trained=20 * DAY_MS, anchor_trained=0), False),
        (Window(begins=19 * DAY_MS, serving_trained=0, anchor_trained=20 * DAY_MS), False),
    ],
)
def test_users_that_a_compared_release_was_trained_on_decide_nothing(
    window: Window, passed: bool
) -> None:
    found = judge(measured("new", 0.1), measured("old"), measured("first"), SETTINGS, window)

    assert found.passed == passed
    assert passed or "days from the end of what" in found.reasons[0]


@given(st.floats(0.0, 0.1), st.floats(0.0, 0.1))
def test_a_candidate_that_is_better_for_every_user_is_never_held_back_for_ranking(
    gain: float, more: float
) -> None:
    low = judge(measured("new", gain), measured("old"), measured("first"), SETTINGS, WINDOW)
    high = judge(measured("new", gain + more), measured("old"), measured("first"), SETTINGS, WINDOW)

    assert not failed(low) & {"serving", "anchor"}
    assert not failed(high) & {"serving", "anchor"}

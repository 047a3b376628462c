from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking.data_now import STRAY, Reached
from models.ranking.recency import reached, recency

DAY_MS = 86_400_000
events = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1_000)), max_size=80)
Event = tuple[int, int]  # user, time


def now_of(events: list[Event]) -> int:
    ordered = sorted(events)
    users, times = np.array(ordered, np.int64).reshape(-1, 2).T
    return reached(users, np.ascontiguousarray(times))


def naive(events: list[Event]) -> int:
    newest = sorted({user: max(t for u, t in events if u == user) for user, _ in events}.values())
    return newest[-1 - min(3, len(newest) // 4)] if newest else 0


@given(events)
def test_it_is_the_newest_time_of_all_but_a_few_users(events: list[Event]) -> None:
    assert now_of(events) == naive(events)


@given(events)
def test_event_by_event_it_is_the_same(events: list[Event]) -> None:
    one_by_one = Reached()
    for n, (user, time) in enumerate(events, start=1):
        one_by_one.see(str(user).encode(), time)
        assert one_by_one.time == naive(events[:n])
    assert one_by_one.time is not None or not events


@pytest.mark.parametrize(("users", "strays"), [(4, 1), (8, 2), (12, STRAY), (1_000, STRAY)])
def test_users_far_ahead_do_not_move_it(users: int, strays: int) -> None:
    told = [(user, 100 - (user >= users // 2)) for user in range(users)]
    wrong = [(user, 9_000) for user in range(strays)]

    assert now_of(told + wrong) in (99, 100)


def test_of_three_users_it_is_the_newest_event() -> None:
    assert now_of([(0, 1), (1, 2), (2, 900)]) == 900


def test_it_halves_with_the_half_life_and_nothing_is_newer_than_new() -> None:
    times = np.array([0, 10, 20, 30], np.int64) * DAY_MS

    assert recency(times, 20 * DAY_MS, 10.0).tolist() == [0.25, 0.5, 1.0, 1.0]

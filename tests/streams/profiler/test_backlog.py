from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.profiler.backlog import Backlog, Waiting
from streams.profiler.profile_version import ProfileVersion
from tests.streams.profiler.requests import record


def waiting(
    user_id: str, applied: int, offset: int, number: int = 1, partition: int = 0
) -> Waiting:
    return Waiting(user_id, ProfileVersion(applied, -1, number), record(offset, b"", partition))


def test_a_newer_request_takes_the_place_of_an_older_one_of_the_same_user() -> None:
    backlog = Backlog()
    first, other, second = waiting("ada", 1, 0), waiting("bob", 1, 1), waiting("ada", 2, 2)
    assert backlog.offer(first) is None
    assert backlog.offer(other) is None
    assert backlog.offer(second) is first
    assert [backlog.take(), backlog.take(), backlog.take()] == [second, other, None]


def test_an_older_request_that_comes_late_is_not_needed() -> None:
    backlog = Backlog()
    newer, older = waiting("ada", 5, 0), waiting("ada", 4, 1)
    backlog.offer(newer)
    assert backlog.offer(older) is older
    assert backlog.take() is newer


def test_a_user_is_worked_on_once_at_a_time() -> None:
    backlog = Backlog()
    backlog.offer(waiting("ada", 1, 0))
    assert backlog.take() is not None
    later = waiting("ada", 2, 1)
    assert backlog.offer(later) is None
    assert backlog.take() is None
    backlog.release("ada")
    assert backlog.take() is later


def test_other_work_on_a_user_is_refused_while_a_request_waits_or_is_answered() -> None:
    backlog = Backlog()
    assert backlog.hold("ada")
    assert not backlog.hold("ada")
    backlog.offer(waiting("bob", 1, 0))
    assert not backlog.hold("bob")


def test_requests_of_partitions_that_were_taken_away_are_forgotten() -> None:
    backlog = Backlog()
    backlog.offer(waiting("ada", 1, 0, partition=0))
    kept = waiting("bob", 1, 0, partition=1)
    backlog.offer(kept)
    backlog.forget({0})
    assert backlog.take() is kept
    assert len(backlog) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(1, 3))))
def test_every_request_is_either_taken_or_said_to_be_spare_and_the_newest_is_taken(
    asked: list[tuple[str, int, int]],
) -> None:
    backlog, spare = Backlog(), []
    offered = [waiting(user, applied, n, number) for n, (user, applied, number) in enumerate(asked)]
    for one in offered:
        spare += [left] if (left := backlog.offer(one)) else []
    taken = []
    while one := backlog.take():
        taken.append(one)
    assert sorted(w.position for w in taken + spare) == [w.position for w in offered]
    newest = {user: max(w.marks for w in offered if w.user_id == user) for user, _, _ in asked}
    assert {w.user_id: w.marks for w in taken} == newest

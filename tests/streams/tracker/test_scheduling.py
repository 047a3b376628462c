from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.settings import TriggerSettings, WindowSettings
from streams.partition_clock import PartitionClock
from streams.tracker.scheduling import RefreshQueue, ServeQueue, Timers, recommendation_trigger
from streams.tracker.state import Head, ProfileRecord
from streams.triggers import Due

NOW = 1_300_000_000_000
HOUR_MS = 3_600_000
CLOCK = PartitionClock()  # of a partition in which time passes as the wall's does
A, B, C = (0, "ada"), (0, "bob"), (1, "cleo")


def record(profile_id: str) -> ProfileRecord:
    return ProfileRecord(profile_id, 1, NOW, 5, -1, False, "base-0", "base-0", b"{}", b"")


def test_nothing_is_owed_to_a_user_without_events_or_profile():
    assert recommendation_trigger(Head(), None, "base-0") is None


def test_a_new_event_a_new_profile_and_a_new_release_each_owe_a_list():
    served = {"recommended": 5, "recommended_profile": "p", "recommended_release": "base-0"}
    assert recommendation_trigger(Head(applied=5, **served), record("p"), "base-0") is None
    assert recommendation_trigger(Head(applied=6, **served), record("p"), "base-0") == "event"
    assert recommendation_trigger(Head(applied=5, **served), record("q"), "base-0") == "profile"
    assert recommendation_trigger(Head(applied=5, **served), record("p"), "next") == "release"


def test_a_profile_whose_vector_is_of_another_release_owes_nothing_by_itself():
    served = {"recommended": 5, "recommended_profile": "p", "recommended_release": "next"}
    assert recommendation_trigger(Head(applied=5, **served), record("q"), "next") is None
    assert recommendation_trigger(Head(applied=6, **served), record("q"), "next") == "event"
    assert recommendation_trigger(Head(applied=5, **served), None, "next") == "profile"


def test_the_newest_waiting_users_are_served_first():
    waiting = ServeQueue(interval=1.0)
    for place in (A, B, A):
        waiting.add(place)
    assert waiting.take(1, now=0.0) == [A]
    assert waiting.take(9, now=0.0) == [B]


def test_a_user_just_served_waits_for_the_interval():
    waiting = ServeQueue(interval=1.0)
    waiting.add(A)
    waiting.take(1, now=0.0)
    waiting.add(A)
    assert waiting.take(1, now=0.9) == []
    assert len(waiting) == 1
    assert waiting.take(1, now=1.0) == [A]


def test_who_waits_is_told_that_somebody_may_be_served_and_not_of_who_must_rest():
    waiting = ServeQueue(interval=1.0)
    waiting.add(A)
    assert waiting.ready.is_set()
    waiting.take(1, now=0.0)
    waiting.ready.clear()
    waiting.add(A)
    assert not waiting.ready.is_set()
    waiting.add(B)
    assert waiting.ready.is_set()


def test_a_new_profile_does_not_wait_for_the_interval():
    waiting = ServeQueue(interval=1.0)
    waiting.add(A)
    waiting.take(1, now=0.0)
    waiting.add(A, at_once=True)
    assert waiting.take(1, now=0.1) == [A]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from([A, B, C])),
            st.tuples(st.just("take"), st.integers(1, 3)),
        ),
        max_size=60,
    )
)
def test_no_moved_user_is_ever_forgotten_and_none_is_served_twice_within_the_interval(steps):
    waiting, moved, served = ServeQueue(interval=5.0), set(), {}
    for now, (step, value) in enumerate(steps):
        if step == "add":
            waiting.add(value)
            moved.add(value)
            continue
        for place in waiting.take(value, float(now)):
            assert place in moved
            assert now - served.get(place, -5) >= 5
            moved.discard(place)
            served[place] = now
    assert set(waiting.take(99, now=1e9)) == moved


def test_users_of_lost_partitions_are_dropped():
    waiting = ServeQueue(interval=1.0)
    waiting.add(A)
    waiting.add(C)
    waiting.drop_partitions_except({1})
    assert waiting.take(9, now=0.0) == [C]


def due_users() -> RefreshQueue:
    return RefreshQueue(TriggerSettings(evidence=4, first_evidence=1), WindowSettings())


def test_the_stalest_are_asked_for_first_ties_by_place():
    due = due_users()
    for place, evidence in ((C, 2.0), (B, 8.0), (A, 2.0)):
        due.look_at_head(place, Head(evidence=evidence), NOW, CLOCK, NOW)
    assert [place for place, _ in due.stalest(3, now=0.0)] == [B, A, C]
    assert due.stalest(1, now=0.0)[0][1] == Due(3.0, "first")


def test_a_settled_user_is_not_due_until_there_is_a_reason_again():
    due = due_users()
    due.look_at_head(A, Head(evidence=4.0), NOW, CLOCK, NOW)
    due.settle(A)
    assert len(due) == 0


def test_a_user_is_woken_when_a_window_empties_and_only_in_their_partition():
    due = due_users()
    asked = Head(requested_as_of=NOW, evidence=1.0, requested_evidence=1.0)
    due.look_at_head(A, asked, NOW, CLOCK, NOW)
    emptied = NOW + 48 * HOUR_MS
    assert list(due.silent(0, CLOCK, emptied - 1)) == []
    assert list(due.silent(1, CLOCK, emptied)) == []
    assert list(due.silent(0, CLOCK, emptied)) == [A]


def test_a_user_whose_own_time_is_long_ago_is_woken_by_it():
    then = NOW - 90_000 * HOUR_MS
    asked = Head(requested_as_of=then, evidence=1.0, requested_evidence=1.0, lead=then - NOW)
    faster = PartitionClock(gained=48 * HOUR_MS)
    for clock, emptied in ((CLOCK, NOW + 48 * HOUR_MS), (faster, NOW)):
        due = due_users()
        due.look_at_head(A, asked, then, CLOCK, NOW)
        assert list(due.silent(0, clock, emptied - 1)) == []
        assert list(due.silent(0, clock, emptied)) == [A]


def test_a_user_in_the_middle_of_a_visit_is_asked_for_when_it_is_over():
    due = due_users()
    for moved_at in (0.0, 1.0, 2.5):
        due.look_at_head(A, Head(evidence=4.0), NOW, CLOCK, NOW, moved_at)
    assert due.stalest(1, now=4.4) == []
    assert [place for place, _ in due.stalest(1, now=4.5)] == [A]


def test_a_user_who_never_rests_is_asked_for_after_ten_times_as_long():
    due = due_users()
    for moved_at in range(21):
        due.look_at_head(A, Head(evidence=4.0), NOW, CLOCK, NOW, float(moved_at))
    assert due.stalest(1, now=19.9) == []
    assert [place for place, _ in due.stalest(1, now=20.0)] == [A]


def test_a_user_found_owed_after_a_restart_is_asked_for_at_once():
    due = due_users()
    due.look_at_head(A, Head(evidence=4.0), NOW, CLOCK, NOW)
    assert [place for place, _ in due.stalest(1, now=0.0)] == [A]


def test_a_user_keeps_one_timer_however_many_events_come():
    timers = Timers()
    for at in range(10_000):
        timers.wake_at(A, NOW + at)
    assert len(timers) == 1
    assert list(timers.run_out(0, NOW + 9_998)) == []
    assert list(timers.run_out(0, NOW + 9_999)) == [A]
    assert len(timers) == 0


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.sampled_from([A, B, C]), st.none() | st.integers(0, 50)),
            st.tuples(st.just("run out"), st.integers(0, 1), st.integers(0, 50)),
        ),
        max_size=60,
    )
)
def test_timers_name_exactly_the_users_whose_last_set_time_has_come(steps):
    timers, wanted, now = Timers(), {}, 0
    for step, first, second in steps:
        if step == "set":
            wanted[first] = second
            timers.wake_at(first, second)
            continue
        now = max(now, second)
        due = {p for p, at in wanted.items() if p[0] == first and at is not None and at <= now}
        found = list(timers.run_out(first, now))
        assert sorted(found) == sorted(due)
        for place in due:
            del wanted[place]

"""What replay knows before each event is what the tracker's own `advance` has made of it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from models.schemas import Interaction
from models.settings import WindowSettings
from streams.replay import Replay
from streams.windows import EMPTY, entry_of
from tests.trainer.corpora import DAY, START, MemorySource, bought
from trainer.data.point_in_time import UserLog, replay_users

SPEC = WindowSettings(history_cap=4)


@st.composite
def streams(draw: st.DrawFn, *, honest_ids: bool) -> list[Interaction]:
    """Events of two users in any order of time, some sent again; ids may lie about the time."""
    events = [
        Interaction(
            event_id=f"e{draw(st.integers(0, 30)) if not honest_ids else number}",
            user_id=draw(st.sampled_from(["ann", "bob"])),
            item_id=draw(st.sampled_from(["tea", "cup", "jam"])),
            type=draw(st.sampled_from(["impression", "purchase", "cancel", "rating"])),
            timestamp=START + draw(st.integers(0, 9)) * DAY,
            rating=draw(st.sampled_from([1.0, 5.0])),
            review=draw(st.sampled_from([None, "good <b>tea</b>"])),
        )
        for number in range(draw(st.integers(1, 14)))
    ]
    again = draw(st.lists(st.sampled_from(events), max_size=6))
    return list(draw(st.permutations(events + again)))


def replayed(events: Sequence[Interaction]) -> dict[str, UserLog]:
    return {log.user_id: log for log in replay_users(MemorySource(events), SPEC)}


def check_against_the_tracker(events: Sequence[Interaction]) -> None:
    replay, logs = Replay(SPEC), replayed(events)
    places = dict.fromkeys(logs, 0)
    for offset, event in enumerate(events):
        user = event.user_id
        log, place = logs.get(user), places.get(user, 0)
        if log and place < len(log.entries) and log.entries[place].offset == offset:
            assert log.before(place, 4) == replay.history(user)
            assert log.applied_before(place, 4) == replay.applied.get(user, -1)
            assert log.entries[place] == entry_of(event, offset)
            places[user] += 1
            replay.take(event, offset)
        else:  # replay left it out: it must change nothing
            before = replay.history(user)
            replay.take(event, offset)
            assert replay.history(user) is before or not before
    assert all(places[user] == len(log.entries) for user, log in logs.items())


@given(streams(honest_ids=True))
def test_histories_are_the_trackers_under_disorder_and_repetition(
    events: list[Interaction],
) -> None:
    check_against_the_tracker(events)


@given(streams(honest_ids=False))
def test_histories_are_the_trackers_even_where_ids_are_used_twice(
    events: list[Interaction],
) -> None:
    check_against_the_tracker(events)


@given(streams(honest_ids=True))
def test_sending_everything_twice_changes_nothing(events: list[Interaction]) -> None:
    once, twice = replayed(events), replayed([*events, *events])

    assert {user: log.entries for user, log in once.items()} == {
        user: log.entries for user, log in twice.items()
    }


def test_users_stay_whole_and_in_their_order_whatever_the_chunks(monkeypatch) -> None:
    monkeypatch.setattr("trainer.data.point_in_time.CHUNK_ROWS", 3)
    events = [bought(f"u{n % 3}", f"i{n}", n) for n in range(20)]

    logs = list(replay_users(MemorySource(events), SPEC))

    assert [log.user_id for log in logs] == ["u0", "u1", "u2"]
    assert [len(log.entries) for log in logs] == [7, 7, 6]
    assert all(
        [entry.offset for entry in log.entries] == sorted(entry.offset for entry in log.entries)
        for log in logs
    )


def test_types_without_weight_are_not_read() -> None:
    seen = bought("ann", "tea", 0, type="impression")

    assert list(replay_users(MemorySource([seen]), SPEC)) == []


def test_nothing_was_known_before_the_first_event() -> None:
    (log,) = replay_users(MemorySource([bought("ann", "tea", 0)]), SPEC)

    assert (log.before(0, 4), log.applied_before(0, 4)) == (EMPTY, -1)

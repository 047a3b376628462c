"""What one user's events do to another user's `now`, windows and profile."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.schemas import Interaction
from models.settings import WindowSettings
from streams.partition_clock import LATENESS_S, VISITORS, PartitionClock
from streams.tracker.reducer import Arrival, apply_interactions, pass_time
from streams.tracker.state import User, decode_clock, encode_clock
from streams.windows import DAY_MS, HOUR_MS, HistoryViews, views

SPEC = WindowSettings()
WALL = 1_780_000_000_000  # when the first record comes in
Y2009, YEAR_MS = 1_230_768_000_000, 365 * DAY_MS
Event = tuple[str, int]  # user, event time


class Partition:
    """One partition as the tracker keeps it: through the same functions, in batches."""

    def __init__(self) -> None:
        self.clock, self.users, self.wall = PartitionClock(), dict[str, User](), WALL
        self.offset = 0
        self.far_ahead: list[tuple[Arrival, int]] = []

    def user(self, user_id: str) -> User:
        return self.users.setdefault(user_id, User(user_id))

    def take(self, events: Iterable[Event], every_ms: int | None = 1, batch: int = 50) -> Partition:
        """`every_ms` of wall time lies between two events; None: they come when they happen."""
        waiting: list[Arrival] = []
        for number, (user_id, at) in enumerate(events):
            self.wall = max(self.wall, at) if every_ms is None else self.wall + every_ms
            event_id = f"{user_id}-{at}-{number}"
            one = Interaction(
                event_id=event_id, user_id=user_id, item_id="i", type="purchase", timestamp=at
            )
            waiting.append(Arrival(one, self.offset, self.wall))
            self.offset += 1
            if len(waiting) == batch:
                self._apply(waiting)
                waiting = []
        self._apply(waiting)
        return self

    def _apply(self, arrivals: list[Arrival]) -> None:
        passing = pass_time(self.clock, arrivals, self.user, SPEC)
        self.clock = passing.clock
        self.far_ahead += passing.far_ahead
        for one in passing.arrivals:
            user = self.user(one.interaction.user_id)
            apply_interactions(user, [one], SPEC, Counter())

    def now(self, user_id: str, later_ms: int = 0) -> int:
        return self.users[user_id].now(self.clock, self.wall + later_ms)

    def windows(self, user_id: str) -> HistoryViews:
        return views(self.users[user_id].history, self.now(user_id), SPEC)


def year_of(users: int, events: int, seed: int, since: int = Y2009) -> list[Event]:
    """A year in which the users come at any time, sorted by time."""
    draw = random.Random(seed)
    found = [(f"u{draw.randrange(users)}", since + draw.randrange(YEAR_MS)) for _ in range(events)]
    return sorted(found, key=lambda event: event[1])


def blocks(users: int, seed: int) -> list[list[Event]]:
    """Each user's events of some weeks in fifteen years."""
    draw = random.Random(seed)
    starts = [Y2009 + draw.randrange(15 * YEAR_MS) for _ in range(users)]
    return [
        sorted((f"u{n}", start + draw.randrange(30 * DAY_MS)) for _ in range(8))
        for n, start in enumerate(starts)
    ]


def test_a_user_of_2013_does_not_age_one_of_2009():
    bought = [("a", Y2009 + day * DAY_MS) for day in range(4)]
    found = Partition().take([*bought, ("b", Y2009 + 4 * YEAR_MS)])
    assert [entry.timestamp for entry in found.windows("a").medium] == [at for _, at in bought]
    assert len(found.windows("b").short) == 1


@pytest.mark.parametrize("order", ["as they come", "by first event", "newest first", "shuffled"])
def test_an_import_over_fifteen_years_that_is_not_sorted_by_time_ages_nobody(order):
    users = blocks(400, seed=3)
    if order != "as they come":
        users.sort(key=lambda events: events[0][1], reverse=order == "newest first")
    events = [event for block in users for event in block]
    if order == "shuffled":
        random.Random(3).shuffle(events)
    found = Partition().take(events)
    for user_id, user in found.users.items():
        assert found.now(user_id) - user.newest < 60_000
        assert len(found.windows(user_id).medium) == 8


def test_a_second_file_that_is_sorted_by_user_ages_nobody_either():
    found = Partition()
    for later in (0, DAY_MS):
        found.take((user, at + later) for block in blocks(200, seed=5) for user, at in block)
    assert found.clock.gained == 0


def test_a_second_file_of_the_same_years_ages_nobody_of_the_first():
    first, second = (
        [(name + user, at) for user, at in year_of(users=60, events=1_800, seed=seed)]
        for name, seed in (("a", 1), ("b", 2))
    )
    found = Partition().take(first)
    before = {user_id: found.now(user_id) for user_id in found.users}
    found.take(second)
    assert found.clock.gained > 600 * DAY_MS
    for user_id, now in before.items():
        assert found.now(user_id) - now < DAY_MS + span_of_visits(first)


def test_a_file_of_the_year_before_ages_nobody_either():
    later = year_of(users=60, events=1_800, seed=1, since=Y2009 + YEAR_MS)
    found = Partition().take(later).take(year_of(users=60, events=1_800, seed=2))
    for user_id in found.users:
        assert found.now(user_id) <= Y2009 + 2 * YEAR_MS + span_of_visits(later)


def test_events_sent_again_pass_no_time():
    events = year_of(users=60, events=1_200, seed=1)
    found = Partition().take(events)
    gained = found.clock.gained
    assert gained > 300 * DAY_MS
    found.take(events)
    assert found.clock.gained == gained


def span_of_visits(events: list[Event]) -> int:
    """The longest time in which four times as many events come as the clock keeps visits."""
    times = [at for _, at in events]
    return max(b - a for a, b in zip(times, times[4 * VISITORS :], strict=False))


@pytest.mark.parametrize("users", [40, 75, 300])
def test_a_live_year_and_a_replayed_one_age_silent_users_alike(users):
    events = year_of(users, users * 20, seed=users)
    events.insert(3 * len(events) // 4, ("silent", events[3 * len(events) // 4][1]))
    replayed = Partition().take(events)
    live = Partition()
    live.wall = 0
    live.take(events, every_ms=None)
    for user in live.users:
        assert live.now(user) == max(live.wall, live.users[user].newest)
        assert abs(live.now(user) - replayed.now(user)) <= span_of_visits(events)
    assert replayed.now("silent") - replayed.users["silent"].newest > 60 * DAY_MS
    assert len(replayed.windows("silent").long) == 1
    assert replayed.windows("silent").medium == ()


events_of_a_rogue = st.lists(
    st.tuples(st.integers(0, 799), st.integers(-5 * YEAR_MS, 10 * YEAR_MS)), max_size=60
)


@settings(max_examples=25, deadline=None)
@given(events_of_a_rogue)
def test_one_users_events_move_nobody_else_in_a_live_stream(rogue):
    """Whatever the clock of one user says, up to ten minutes after Kafka's."""
    honest = year_of(users=50, events=800, seed=9)
    with_rogue = list(honest)
    for place, lead in sorted(rogue, reverse=True):
        at = min(honest[place][1] + lead, honest[place][1] + 600_000)
        with_rogue.insert(place, ("rogue", max(0, at)))
    before, after = Partition(), Partition()
    before.wall = after.wall = 0
    before.take(honest, every_ms=None)
    after.take(with_rogue, every_ms=None)
    after.wall = before.wall  # the rogue's may be the last event of all
    for user in before.users:
        assert after.now(user) == before.now(user)
        assert [len(window) for window in after.windows(user)] == [
            len(window) for window in before.windows(user)
        ]


@settings(max_examples=25, deadline=None)
@given(events_of_a_rogue)
def test_one_users_events_move_others_by_no_more_than_a_few_visits_in_a_replay(rogue):
    honest = year_of(users=50, events=800, seed=9)
    with_rogue = list(honest)
    for place, lead in sorted(rogue, reverse=True):
        with_rogue.insert(place, ("rogue", max(0, honest[place][1] + lead)))
    before, after = Partition().take(honest), Partition().take(with_rogue)
    for user in before.users:
        assert abs(after.now(user) - before.now(user)) <= span_of_visits(honest)


def test_a_producer_of_a_third_of_the_users_whose_clock_is_a_year_fast_ages_nobody():
    events = [
        (user, at + YEAR_MS if int(user[1:]) % 3 == 0 else at)
        for user, at in year_of(users=90, events=1_800, seed=2)
    ]
    found = Partition().take(events)
    true_end = Y2009 + YEAR_MS
    honest = [user for user in found.users if int(user[1:]) % 3]
    assert all(found.now(user) <= true_end + 600_000 for user in honest)


def test_a_backfill_beside_live_events_ages_nobody_beyond_the_wall():
    live = [(f"live{n % 30}", WALL + n) for n in range(1_200)]
    old = year_of(users=60, events=1_200, seed=4)
    mixed = [event for pair in zip(live, old, strict=True) for event in pair]
    found = Partition().take(mixed, every_ms=1)
    for user_id, user in found.users.items():
        now = found.now(user_id)
        assert now <= max(user.newest, found.wall)
        if user_id.startswith("u"):  # the old ones are at the time of their own
            assert now <= Y2009 + YEAR_MS + DAY_MS
        else:
            assert found.wall - now < 60_000


def test_a_replay_on_a_system_that_was_live_is_told_in_its_own_time():
    found = Partition().take([(f"live{n % 30}", WALL + n) for n in range(300)])
    found.take(year_of(users=60, events=1_200, seed=6))
    newest = max(user.newest for name, user in found.users.items() if name.startswith("u"))
    assert found.clock.gained > 300 * DAY_MS
    for user_id in found.users:
        expected = found.wall if user_id.startswith("live") else newest
        assert abs(found.now(user_id) - expected) < 12 * DAY_MS


steps = st.lists(
    st.tuples(st.integers(0, 25), st.integers(0, 3 * YEAR_MS), st.integers(0, 5_000)), max_size=120
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_only_a_users_own_newest_event_takes_time_back_and_none_goes_beyond_the_wall(steps):
    found, last = Partition(), dict[str, int]()
    for user, at, waited in steps:
        found.wall += waited
        came = f"u{user}"
        found.take([(came, Y2009 + at)])
        for user_id in found.users:
            now = found.now(user_id)
            assert now >= found.users[user_id].newest
            assert now <= max(found.wall, found.users[user_id].newest)
            theirs = user_id == came and found.users[user_id].newest == Y2009 + at
            assert now >= last.get(user_id, 0) or theirs
            last[user_id] = now


@pytest.mark.parametrize("users", [40, 75, 300])
@pytest.mark.parametrize("later_first", [False, True])
def test_in_a_replay_a_users_own_event_says_what_time_it_is_for_them(users, later_first):
    events = year_of(users, users * 20, seed=users)
    found = Partition()
    if later_first:
        later = year_of(users=60, events=1_200, seed=1, since=Y2009 + YEAR_MS)
        found.take((f"later-{user_id}", at) for user_id, at in later)
    ahead = 0
    for user_id, at in events:
        ahead = max(ahead, found.now(user_id) - at if user_id in found.users else 0)
        found.take([(user_id, at)])
        assert found.now(user_id) - at < 60_000
    assert ahead > DAY_MS if later_first else ahead < 60_000  # by the partition alone


def test_an_event_that_is_late_by_days_in_a_live_stream_takes_no_time_back():
    live = [(f"u{n % 30}", WALL + n * HOUR_MS) for n in range(600)]
    found = Partition().take(live, every_ms=None)
    newest = found.users["u3"].newest
    found.wall += 20 * DAY_MS
    found.take([("u3", newest + HOUR_MS)])
    assert found.now("u3") == found.wall


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(1, 40))
def test_the_same_events_give_the_same_clock_whatever_the_batches_and_restarts(steps, batch):
    events = [(f"u{user}", Y2009 + at) for user, at, _ in steps]
    at_once, cut = Partition().take(events, batch=1), Partition()
    cut.take(events, batch=batch)
    assert cut.clock == at_once.clock
    assert [(u.head.lead, u.head.gained) for u in cut.users.values()] == [
        (u.head.lead, u.head.gained) for u in at_once.users.values()
    ]
    assert decode_clock(encode_clock(cut.clock, 7, 3)) == (cut.clock, 7, 3)


def test_a_silent_user_ages_with_the_wall_after_the_last_event():
    found = Partition().take([("a", Y2009)])
    assert found.now("a") == Y2009
    assert found.now("a", later_ms=50 * HOUR_MS) == Y2009 + 50 * HOUR_MS


def test_before_any_event_the_clock_shows_the_wall():
    assert PartitionClock().counted(Y2009) == Y2009
    assert User("new").now(PartitionClock(), Y2009) == Y2009


def test_events_of_one_day_may_come_in_any_order():
    draw = random.Random(8)
    events = [
        (user, at - draw.randrange(LATENESS_S * 500))
        for user, at in year_of(users=200, events=4_000, seed=8)
    ]
    assert Partition().take(events).clock.gained > 300 * DAY_MS


def test_an_event_of_another_clock_is_told_apart():
    events = [(f"u{n % 20}", Y2009 + n * HOUR_MS) for n in range(100)]
    found = Partition().take([*events, ("fast", Y2009 + YEAR_MS), *events])
    [(arrival, bulk)] = found.far_ahead
    assert arrival.interaction.user_id == "fast"
    assert abs(bulk - events[-1][1]) < DAY_MS


def test_a_small_record_holds_the_clock():
    clock = Partition().take(year_of(users=60, events=1_200, seed=1)).clock
    assert len(clock.visits) == VISITORS
    assert len(encode_clock(clock, 10**6, 10)) < 250

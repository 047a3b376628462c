"""What a user asked to be forgotten stays out: live state = rebuild = replay = a naive oracle."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.schemas import EARLIEST_MS, Interaction, ProfileEdit, ProfileRequest
from models.settings import DEFAULT_WEIGHTS, Settings, load_settings
from streams.codec import Rejected, decode_keyed
from streams.event_log import SegmentLog, connect_views
from streams.event_log.views import wish_views
from streams.parity import check_parity
from streams.rebuild import compare, rebuild_partition
from streams.tracker.profile_requests import build_request
from streams.tracker.reducer import Arrival, apply_edit, apply_interactions
from streams.tracker.state import User, load, store
from streams.triggers import Due
from tests.streams.logged import NOW, record, record_of
from trainer.data.log_source import LogSource

SECOND = 1_000
NO_TIMES = (-1, 0, NOW // 1000)  # none, and what producers' clocks give


class Taken(NamedTuple):
    """A message and when Kafka took it."""

    message: Interaction | ProfileEdit
    kafka_time: int


WEIGHTS = (
    {},
    {"view": 0},
    {"impression": 0.1},
    {"impression": 0.1, "view": 0, "purchase": 0},
    dict.fromkeys(DEFAULT_WEIGHTS, 1.0),
)


@pytest.fixture(scope="module", params=WEIGHTS, ids=str)
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_with(tmp_path_factory.mktemp("data"), request.param)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_with(tmp_path_factory.mktemp("data"), {})


def settings_with(folder: Path, weights: dict[str, float]) -> Settings:
    windows = {"history_cap": 40, "weights": weights}
    return load_settings(data_dir=folder, kafka={"partitions": 1}, windows=windows)


def event(number: int, at: int, user: str = "ann", kind: str = "purchase") -> Interaction:
    return Interaction(
        event_id=f"e{number}",
        user_id=user,
        item_id=f"i{number % 4}",
        type=kind,
        timestamp=NOW + at * SECOND,
    )


def wish(number: int, at: int, user: str = "ann") -> ProfileEdit:
    return ProfileEdit(
        edit_id=f"w{number}", user_id=user, action="forget", timestamp=NOW + at * SECOND
    )


@st.composite
def streams(draw: st.DrawFn) -> list[Taken]:
    """Events, late events, impressions, wishes whose clock is wrong or that Kafka has no time for,
    and events and wishes sent again, by Kafka's time."""
    made: list[Taken] = []
    for number in range(draw(st.integers(1, 30))):
        kafka_time = NOW + (100 + number) * SECOND
        kind = draw(st.sampled_from(["event", "event", "impression", "again", "wish"]))
        user = draw(st.sampled_from(["ann", "ann", "bob"]))
        if kind == "wish":
            message = wish(number, draw(st.integers(60, 150)), user)
            kafka_time = draw(st.sampled_from([kafka_time, kafka_time, *NO_TIMES]))
        elif kind == "impression":  # shown up to ten minutes ahead of Kafka's clock
            message = event(number, draw(st.integers(80, 700 + number)), user, kind)
        elif kind == "again" and made:
            message = draw(st.sampled_from(made)).message
        else:
            done = draw(st.sampled_from(["purchase", "view"]))
            message = event(number, draw(st.integers(80, 100 + number)), user, done)
        made.append(Taken(message, kafka_time))
    return made


def is_event(taken: Taken) -> bool:
    return isinstance(taken.message, Interaction)


def is_done(taken: Taken, settings: Settings) -> bool:
    return is_event(taken) and settings.windows.weights[taken.message.type.value] > 0


def oracle(stream: list[Taken], user: str, settings: Settings) -> list[str]:
    """What histories hold, in their order."""
    done = {one.message.event_id for one in stream if is_done(one, settings)}
    return [event_id for event_id in remembered(stream, user, settings) if event_id in done]


def remembered(stream: list[Taken], user: str, settings: Settings) -> list[str]:
    """Written out: an event is forgotten if Kafka took it before a wish, or if it had happened
    when the wish was made, or before something that Kafka had taken before the wish. A wish that
    is sent again is none."""
    mine = [one for one in stream if one.message.user_id == user]
    taken = [one for one in mine if not is_event(one) and one.kafka_time >= EARLIEST_MS]
    wishes = {one.message.edit_id: one for one in reversed(taken)}.values()
    left = {}
    for one in filter(is_event, mine):
        forgotten = False
        for asked in wishes:
            before = [e for e in mine if is_done(e, settings) and e.kafka_time <= asked.kafka_time]
            until = max(
                min(asked.message.timestamp, asked.kafka_time),
                *(e.message.timestamp for e in before),
                0,
            )
            forgotten |= one.kafka_time <= asked.kafka_time or one.message.timestamp <= until
        if not forgotten:
            left.setdefault(one.message.event_id, one.message.timestamp)
    return [name for name, _ in sorted(left.items(), key=lambda pair: (pair[1], pair[0]))]


class Tracker:
    """The tracker's functions over a table in memory, as streams/tracker/role.py calls them."""

    def __init__(self, settings: Settings, stream: list[Taken]) -> None:
        self.settings = settings
        self.table: dict[bytes, bytes] = {}
        self.events = [one for one in stream if is_event(one)]
        self.edits = [one for one in stream if not is_event(one)]
        self.read = [0, 0]  # events, edits
        self.requests: list[ProfileRequest] = []

    def user(self, user_id: str) -> User:
        return load(user_id, self.table.get, self.settings.windows.history_cap)

    def take_event(self) -> None:
        offset = self.read[0]
        taken = self.events[offset]
        user = self.user(taken.message.user_id)
        until = user.head.forgotten_until
        arrival = Arrival(taken.message, offset, taken.kafka_time)
        inserted = apply_interactions(user, [arrival], self.settings.windows, Counter())
        moved = user.head.forgotten_until != until
        self._save(user, [e.key for e in user.history] if moved else inserted)
        self.read[0] += 1

    def take_edit(self) -> None:
        offset = self.read[1]
        taken = self.edits[offset]
        logged = record_of("profile-edits", 0, offset, *taken)
        if not isinstance(decode_keyed(logged, ProfileEdit, 1), Rejected):
            user = self.user(taken.message.user_id)
            apply_edit(user, taken.message, offset, taken.kafka_time)
            self._save(user, [])
        self.read[1] += 1

    def ask(self, user_id: str) -> None:
        as_of, due = NOW + 1_000 * SECOND, Due(1.0, "evidence")
        user = self.user(user_id)
        self.requests.append(build_request(user, 0, due, as_of, NOW, self.settings, str))

    def _save(self, user: User, inserted) -> None:
        for key, value in store(user, inserted):
            if value is None:
                self.table.pop(key, None)
            else:
                self.table[key] = value

    def finish(self) -> None:
        """Read what is left, in Kafka's order of time."""
        while self.read[0] < len(self.events) or self.read[1] < len(self.edits):
            event = next(iter(self.events[self.read[0] :]), None)
            edit = next(iter(self.edits[self.read[1] :]), None)
            if edit is None or (event is not None and event.kafka_time < edit.kafka_time):
                self.take_event()
            else:
                self.take_edit()


def logged(folder: str, settings: Settings, tracker: Tracker) -> SegmentLog:
    log = SegmentLog(Path(folder))
    for topic, found in (("interactions", tracker.events), ("profile-edits", tracker.edits)):
        rows = [record_of(topic, 0, at, *one) for at, one in enumerate(found)]
        record(log, settings, rows)
    asked = [record_of("profile-requests", 0, n, one) for n, one in enumerate(tracker.requests)]
    record(log, settings, asked)
    return log


@given(streams(), st.lists(st.integers(0, 29), max_size=4))
@hypothesis_settings(max_examples=30, deadline=None)
def test_live_rebuilt_and_replayed_states_are_those_of_the_oracle(
    settings: Settings, stream: list[Taken], asking: list[int]
) -> None:
    tracker = Tracker(settings, stream)
    for number, one in enumerate(stream):
        tracker.take_event() if is_event(one) else tracker.take_edit()
        if number in asking:
            tracker.ask("ann")
    tracker.ask("ann")
    with tempfile.TemporaryDirectory() as folder:
        log = logged(folder, settings, tracker)
        rebuilt = rebuild_partition(log, settings, 0)
        report = check_parity(log, settings)
        weights = settings.windows.weights
        source = LogSource(log, weights)
        learned = source.interactions(0, ("user_id", "event_id")) if tracker.events else None
        with connect_views(Path(folder), weights) as connection:
            counted = connection.execute("SELECT DISTINCT user_id, event_id FROM remembered")
            in_view = set(counted.fetchall())
    assert report.mismatches == []
    for user_id in ("ann", "bob"):
        left = oracle(stream, user_id, settings)
        assert [entry.event_id for entry in tracker.user(user_id).history] == left
        whole = set(remembered(stream, user_id, settings))
        assert {event_id for user, event_id in in_view if user == user_id} == whole
        if learned is not None:
            rows = [row for row in learned.to_pylist() if row["user_id"] == user_id]
            assert {row["event_id"] for row in rows} == whole
        if user_id in rebuilt.users:
            assert compare(rebuilt.user(user_id), tracker.user(user_id)) is None


@given(streams(), st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=30, deadline=None)
def test_wishes_that_are_read_before_the_events_come_to_the_same(
    settings: Settings, stream: list[Taken], random
) -> None:
    """As after a stop, when the edits are read while interactions are still far behind."""
    tracker = Tracker(settings, stream)
    while tracker.read[1] < len(tracker.edits):
        wished = tracker.edits[tracker.read[1]].kafka_time
        event = next(iter(tracker.events[tracker.read[0] :]), None)
        if event is not None and event.kafka_time < wished and random.random() < 0.3:
            tracker.take_event()
        else:
            tracker.take_edit()
    tracker.finish()
    for user_id in ("ann", "bob"):
        left = oracle(stream, user_id, settings)
        assert [entry.event_id for entry in tracker.user(user_id).history] == left


def test_a_purchase_that_is_sent_again_after_forget_stays_forgotten(usual: Settings) -> None:
    first, late = event(1, at=0), event(2, at=5)
    stream = [
        Taken(first, NOW + 1),
        Taken(wish(1, at=10), NOW + 10 * SECOND),
        Taken(first, NOW + 11 * SECOND),
        Taken(late, NOW + 12 * SECOND),
        Taken(event(3, at=13), NOW + 13 * SECOND),
    ]
    tracker = Tracker(usual, stream)
    tracker.finish()
    assert [entry.event_id for entry in tracker.user("ann").history] == ["e3"]


def test_a_wish_that_is_sent_again_forgets_nothing_that_came_between(usual: Settings) -> None:
    stream = [
        Taken(event(1, at=0), NOW + 1),
        Taken(wish(1, at=10), NOW + 10 * SECOND),
        Taken(event(2, at=20), NOW + 20 * SECOND),
        Taken(wish(1, at=10), NOW + 30 * SECOND),
    ]
    tracker = Tracker(usual, stream)
    tracker.finish()
    assert [entry.event_id for entry in tracker.user("ann").history] == ["e2"]
    assert tracker.user("ann").head.edits == 0


def test_a_wish_from_the_future_does_not_silence_the_user(usual: Settings) -> None:
    stream = [
        Taken(wish(1, at=1_000_000), NOW + SECOND),
        Taken(event(1, at=2), NOW + 2 * SECOND),
    ]
    tracker = Tracker(usual, stream)
    tracker.finish()
    assert [entry.event_id for entry in tracker.user("ann").history] == ["e1"]


def test_a_year_that_is_replayed_goes_on_after_the_wish(usual: Settings) -> None:
    """Event times lie years before Kafka's; the wish is made in the time of the events."""
    years = 10 * 365 * 86_400 * SECOND
    stream = [
        Taken(event(1, at=0), NOW + years),
        Taken(wish(1, at=1), NOW + years + SECOND),
        Taken(event(2, at=2), NOW + years + 2 * SECOND),
    ]
    tracker = Tracker(usual, stream)
    tracker.finish()
    assert [entry.event_id for entry in tracker.user("ann").history] == ["e2"]


@pytest.mark.parametrize("kafka_time", [*NO_TIMES, NOW * 1000])
def test_an_old_logs_wish_without_kafkas_time_counts_from_its_own(kafka_time: int) -> None:
    """Such wishes are refused today; old logs, and states, hold them as accepted."""
    asked = wish(1, at=10)
    user, days = User("ann"), [NOW, NOW + 20 * SECOND]
    sent = [Arrival(event(n, at=20 * n), n, at) for n, at in enumerate(days)]
    spec = load_settings().windows
    apply_interactions(user, sent[:1], spec, Counter())
    apply_edit(user, asked, 0, kafka_time)
    apply_interactions(user, sent[1:], spec, Counter())
    assert [entry.event_id for entry in user.history] == ["e1"]
    assert user.head.forgotten_until == asked.timestamp
    with duckdb.connect() as log:
        log.execute(
            f"CREATE TABLE interactions AS SELECT 'ann' AS user_id, 'e' || n AS event_id, "
            f"'purchase' AS type, 'ok' AS status, {NOW} + n * 20000 AS timestamp, "
            f"{NOW} + n * 20000 AS kafka_time FROM range(2) AS numbers(n)"
        )
        log.execute(
            "CREATE TABLE edits AS SELECT 'ann' AS user_id, 'forget' AS action, 'ok' AS status, "
            f"""'{asked.edit_id}' AS edit_id, 0 AS "offset", """
            f"{asked.timestamp} AS timestamp, {kafka_time} AS kafka_time"
        )
        for view in wish_views(DEFAULT_WEIGHTS):
            log.execute(view)
        assert log.execute("SELECT event_id FROM remembered").fetchall() == [("e1",)]

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec
import pytest

from models.schemas import Interaction, ProfileEdit, Recommendation, Windows
from models.settings import Settings
from streams.event_log import SegmentLog
from streams.partition_clock import PartitionClock
from streams.rebuild import RebuiltPartition, compare, rebuild_partition
from streams.recorder.rows import Buffer, RecordClassifier
from streams.tracker.reducer import Arrival, apply_interactions, pass_time
from streams.tracker.state import CLOCK_KEY, User, decode_clock, load, source_key
from streams.windows import HOUR_MS, windows_hash
from tests.streams.logged import NOW, ARecord, record, record_of
from tests.streams.test_parity import profile, request

TOPICS = ("interactions", "profile-edits", "profile-requests", "profiles", "recommendations")


@pytest.fixture
def settings(make_settings) -> Settings:
    return make_settings(kafka={"partitions": 1})


def event(number: int, user: str = "ann", **fields) -> Interaction:
    values = {"event_id": f"e{number}", "user_id": user, "item_id": "i", "type": "purchase"}
    return Interaction.model_validate(values | {"timestamp": NOW + number} | fields)


def edit(action: str, **fields) -> ProfileEdit:
    values = {"edit_id": action, "user_id": "ann", "action": action, "timestamp": NOW}
    return ProfileEdit.model_validate(values | fields)


def rebuilt(settings: Settings, *found: tuple[str, list]) -> RebuiltPartition:
    """From messages, or (message, Kafka time) pairs, by topic."""
    log = SegmentLog(settings.log_dir)
    for topic, messages in found:
        timed = [one if isinstance(one, tuple) else (one, NOW) for one in messages]
        rows = [record_of(topic, 0, place, *one) for place, one in enumerate(timed)]
        record(log, settings, rows)
    return rebuild_partition(log, settings, 0)


def events_at(*times: int) -> tuple[str, list]:
    return "interactions", [(event(n), NOW + at) for n, at in enumerate(times)]


def test_an_empty_log_is_an_empty_state(settings):
    found = rebuilt(settings)
    assert found.users == {}
    assert list(found.records()) == [(CLOCK_KEY, dict(found.records())[CLOCK_KEY])]


def test_histories_and_evidence_are_those_of_the_events(settings):
    kinds = ["purchase", "impression", "view", "purchase"]
    found = rebuilt(settings, ("interactions", [event(n, type=k) for n, k in enumerate(kinds)]))
    user = found.users["ann"]
    assert [entry.event_id for entry in user.history] == ["e0", "e2", "e3"]
    assert user.head.applied == 3
    assert user.head.evidence == pytest.approx(2.2)
    assert found.next_offset == 4
    assert user.head.lead == 3


def test_the_rebuilt_clock_and_users_times_are_the_trackers(settings):
    came = NOW + 400 * HOUR_MS
    timed = [(event(n * HOUR_MS, user=f"u{n * 7 % 40}"), came + n) for n in range(400)]
    again = [(one, came + 400 + n) for n, (one, _) in enumerate(timed[:50])]
    found = rebuilt(settings, ("interactions", timed + again))
    arrivals = [Arrival(one, n, at) for n, (one, at) in enumerate(timed + again)]
    users = defaultdict(lambda: User(""))
    clock = PartitionClock()
    for batch in (arrivals[:170], arrivals[170:]):
        for one in batch:
            users[one.interaction.user_id].user_id = one.interaction.user_id
        clock, in_time, _ = pass_time(clock, batch, users.__getitem__, settings.windows)
        for one in in_time:
            user = users[one.interaction.user_id]
            apply_interactions(user, [one], settings.windows, Counter())
    assert found.clock == clock
    assert clock.gained > 0
    assert {name: (user.head.lead, user.head.gained) for name, user in found.users.items()} == {
        name: (user.head.lead, user.head.gained) for name, user in users.items()
    }


def test_the_records_read_back_as_the_states(settings):
    many = [event(n, user=f"u{n % 3}") for n in range(200)]
    asked = request(settings, 3)
    answer = profile(asked, user_id="u1")
    found = rebuilt(settings, ("interactions", many), ("profiles", [answer]))
    records = dict(found.records())
    for user_id, user in found.users.items():
        state = load(user_id, records.get, 500)
        assert state.history == user.history
        assert state.profile == user.profile
        assert compare(user, state) is None
    assert decode_clock(records[CLOCK_KEY])[1] == 200


def test_a_rebuilt_state_is_of_the_topic_that_was_logged(settings):
    row = record_of("interactions", 0, 0, event(0), NOW)
    buffer = Buffer("interactions", 0, 0)
    buffer.add(row, RecordClassifier.of(settings), 0.0)
    SegmentLog(settings.log_dir).append_from("interactions", 0, 0, buffer.table(), "id-of-topic")
    records = dict(rebuild_partition(SegmentLog(settings.log_dir), settings, 0).records())
    assert records[source_key("interactions")] == b"id-of-topic"


def test_the_last_request_is_marked_with_the_evidence_it_saw(settings):
    asked = [request(settings, 1, number=1), request(settings, 2, number=2, edits_offset=4)]
    found = rebuilt(settings, events_at(0, 0, 0, 0), ("profile-requests", asked))
    head = found.users["ann"].head
    assert (head.requests, head.requested, head.requested_edits) == (2, 2, 4)
    assert (head.requested_as_of, head.requested_evidence, head.evidence) == (NOW + 100, 3.0, 4.0)


def test_the_last_recommendation_is_marked(settings):
    sent = [
        Recommendation(
            recommendation_id=f"r{n}", user_id="ann", as_of=NOW, trigger="event",
            applied_offset=n, profile_id="p", release="base-0", items=(), created_at=NOW,
        )
        for n in range(2)
    ]  # fmt: skip
    head = rebuilt(settings, events_at(0, 0), ("recommendations", sent)).users["ann"].head
    marks = (head.recommended, head.recommended_profile, head.recommended_release)
    assert marks == (1, "p", "base-0")


def test_the_newest_profile_is_kept_whatever_came_last(settings):
    newer = profile(request(settings, 3), profile_id="newer")
    older = profile(request(settings, 1), profile_id="older")
    user = rebuilt(settings, ("profiles", [newer, older])).users["ann"]
    assert user.profile is not None
    assert user.profile.profile_id == "newer"


def test_a_removed_profile_is_gone(settings):
    log = SegmentLog(settings.log_dir)
    record(log, settings, [record_of("profiles", 0, 0, profile(request(settings, 1)))])
    record(log, settings, [ARecord("profiles", 0, 1, None, b"ann")])
    assert rebuild_partition(log, settings, 0).users["ann"].profile is None


def test_edits_are_applied_between_the_events_as_kafka_took_them(settings):
    edits = [(edit("forbid", text="wine"), NOW + 15), (edit("forget"), NOW + 25)]
    edits.append((edit("pin", text="I like tea."), NOW + 26))
    found = rebuilt(settings, events_at(10, 20, 30), ("profile-edits", edits))
    user = found.users["ann"]
    assert [entry.event_id for entry in user.history] == ["e2"]
    assert (user.head.history_from, user.head.edits) == (2, 2)
    assert (user.head.pinned, user.head.forbidden) == (("I like tea.",), ())


def test_what_a_request_no_longer_knew_stays_forgotten(settings):
    empty = Windows()
    later = {"history_from": 2, "windows": empty, "windows_hash": windows_hash(empty)}
    asked = request(settings, 1, **later)
    user = rebuilt(settings, events_at(0, 0, 0), ("profile-requests", [asked])).users["ann"]
    assert [entry.offset for entry in user.history] == [2]


def test_invalid_and_forwarded_rows_change_nothing(settings):
    log = SegmentLog(settings.log_dir)
    record(log, settings, [ARecord("interactions", 0, 0, b"{", b"ann")])
    record(log, settings, [ARecord("interactions", 0, 1, event(1).to_json(), b"bob")])
    assert rebuild_partition(log, settings, 0).users == {}


def test_a_state_that_is_not_what_the_log_says_is_told_apart(settings):
    user = rebuilt(settings, events_at(0, 0)).users["ann"]
    behind = User("ann", msgspec.structs.replace(user.head, applied=0), user.history[:1])
    assert compare(user, behind) == "applied up to 0; by the log 1"
    other = User("ann", user.head, user.history[1:])
    assert compare(user, other) == "histories differ in 1 events: e0"
    edited = User("ann", msgspec.structs.replace(user.head, pinned=("x",)), user.history)
    assert compare(user, edited) is not None

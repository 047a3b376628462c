from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.schemas import TOPIC_SCHEMAS, Interaction, Item, ProfileEdit, ReleaseAnnouncement
from streams.codec import DEAD_LETTER_BYTES, FORWARDED_HEADER, MAX_VALUE_BYTES, partition_for
from streams.event_log.columns import NESTED, RAW_NAMES, SCHEMAS, TYPED
from streams.recorder.rows import Buffer, RecordClassifier, encode_headers

NOW = 1_300_000_000_000
JUDGE = RecordClassifier(partitions=4, future_tolerance_ms=600_000)
HOME = partition_for(b"ann", 4)


@dataclass(frozen=True)
class ARecord:
    value: bytes | None
    topic: str = "interactions"
    partition: int = HOME
    offset: int = 0
    timestamp: int = NOW
    key: bytes | None = b"ann"
    headers: Sequence[tuple[str, bytes]] = ()


def interaction(**fields: Any) -> Interaction:
    values = {"event_id": "e", "user_id": "ann", "item_id": "i", "type": "click"}
    return Interaction.model_validate(values | {"timestamp": NOW} | fields)


WITH_STARS = interaction(type="rating", rating=3).to_json()


def row_of(record: ARecord, topic: str = "interactions") -> dict[str, Any]:
    buffer = Buffer(topic, record.partition, start=record.offset)
    buffer.add(record, JUDGE, now=0.0)
    (row,) = buffer.table().to_pylist()
    return row


def test_an_accepted_interaction_has_its_fields_in_columns():
    row = row_of(ARecord(interaction(rating=4.5, session_id="s").to_json()))
    assert (row["status"], row["type"], row["rating"], row["session_id"]) == (
        *("ok", "click", 4.5, "s"),
    )
    assert row["timestamp"] == row["kafka_time"] == NOW


@pytest.mark.parametrize(
    ("record", "status", "reason"),
    [
        (ARecord(b"{"), "invalid", "not_json"),
        (ARecord(None), "invalid", "empty"),
        (ARecord(b'{"user_id": 1}'), "invalid", "invalid"),
        (ARecord(WITH_STARS.replace(b"3.0", b"99")), "invalid", "invalid"),
        (ARecord(WITH_STARS.replace(b"3.0", b"null")), "invalid", "invalid"),
        (ARecord(interaction(timestamp=NOW + 601_000).to_json()), "invalid", "future"),
        (ARecord(interaction().to_json(), key=b"bob"), "forwarded", None),
        (ARecord(interaction().to_json(), partition=(HOME + 1) % 4), "forwarded", None),
        (
            ARecord(interaction().to_json(), key=b"bob", headers=[(FORWARDED_HEADER, b"1")]),
            *("invalid", "wrong_key"),
        ),
    ],
)
def test_an_interaction_that_is_not_accepted_is_a_row_without_fields(record, status, reason):
    row = row_of(record)
    assert (row["status"], row["reason"], row["event_id"]) == (status, reason, None)
    assert (row["value"], row["key"]) == (record.value, record.key)


@pytest.mark.parametrize(
    ("key", "partition"), [(b"bob", HOME), (None, HOME), (b"ann", (HOME + 1) % 4)]
)
def test_an_edit_that_does_not_lie_where_its_user_does_is_not_accepted(key, partition):
    edit = ProfileEdit(edit_id="1", user_id="ann", action="pin", text="Tea.", timestamp=NOW)
    record = ARecord(edit.to_json(), "profile-edits", key=key, partition=partition)
    row = row_of(record, "profile-edits")
    assert (row["status"], row["reason"]) == ("invalid", "wrong_key")


def test_a_null_value_of_a_compacted_topic_is_a_tombstone():
    row = row_of(ARecord(None, topic="items", key=b"i"), "items")
    assert (row["status"], row["value"], row["size"]) == ("tombstone", None, 0)


def test_a_long_invalid_value_is_cut_and_its_digest_kept():
    value = b"x" * (MAX_VALUE_BYTES + 1)
    row = row_of(ARecord(value))
    assert row["value"] == value[:DEAD_LETTER_BYTES]
    assert (row["size"], row["sha256"]) == (len(value), hashlib.sha256(value).hexdigest())


def test_a_long_accepted_value_is_whole_so_that_it_can_be_replayed():
    item = Item(item_id="i", title="t", description="long " * 100_000)
    home = partition_for(b"i", JUDGE.partitions)
    row = row_of(ARecord(item.to_json(), topic="items", key=b"i", partition=home), "items")
    assert Item.model_validate_json(row["value"]) == item
    assert row["sha256"] is None


def test_a_releases_status_does_not_hide_the_rows():
    announced = ReleaseAnnouncement(release="r", status="serving", at=NOW)
    row = row_of(ARecord(announced.to_json(), topic="releases", key=b"r", partition=0), "releases")
    assert (row["status"], row["step"]) == ("ok", "serving")


@pytest.mark.parametrize("topic", TOPIC_SCHEMAS)
def test_every_field_of_a_schema_is_a_column_or_nested(topic):
    columns = [name for name, _ in TYPED[topic].values()]
    assert not set(columns) & set(RAW_NAMES)
    assert [*RAW_NAMES, *columns] == SCHEMAS[topic].names
    left_out = {"partition"} if topic == "profile-requests" else set()
    assert {*TYPED[topic], *NESTED[topic], *left_out} == set(TOPIC_SCHEMAS[topic].model_fields)


@given(st.lists(st.tuples(st.text(), st.binary() | st.none())))
def test_headers_are_json_from_which_they_can_be_read_back(headers):
    text = encode_headers(headers)
    back = [
        (name, bytes.fromhex(value["hex"]) if isinstance(value, dict) else value and value.encode())
        for name, value in orjson.loads(text or "[]")
    ]
    assert [(name, value or b"") for name, value in back] == [
        (name, value or b"") for name, value in headers
    ]


@given(st.binary(), st.none() | st.binary(), st.integers(0, 3))
def test_any_bytes_become_one_row(value, key, partition):
    row = row_of(ARecord(value, key=key, partition=partition))
    assert (row["value"], row["key"], row["partition"]) == (value, key, partition)


@given(st.lists(st.integers(1, 4), max_size=20), st.integers(0, 20))
def test_a_taken_buffer_ends_where_the_rest_begins(jumps, first):
    buffer, offset, seen = Buffer("interactions", HOME, start=0), 0, []
    for place, jump in enumerate(jumps):
        offset += jump
        buffer.add(ARecord(b"{}", offset=offset), JUDGE, now=float(place))
        if place == first:
            taken = buffer.take()
            assert (taken.next, len(buffer), buffer.start) == (offset + 1, 0, offset + 1)
            seen += taken.table().column("offset").to_pylist()
    seen += buffer.take().table().column("offset").to_pylist()
    assert seen == [sum(jumps[: place + 1]) for place in range(len(jumps))]
    assert buffer.start == buffer.next


def test_long_keys_and_headers_count_for_the_size_of_a_segment():
    buffer = Buffer("interactions", HOME, start=0)
    buffer.add(ARecord(b"{", key=b"k" * 1_000, headers=[("name", b"v" * 1_000)]), JUDGE, now=0.0)
    assert buffer.bytes > 2_000


def test_statuses_are_counted_for_the_newest_rows():
    buffer = Buffer("interactions", HOME, start=0)
    for offset, value in enumerate([b"{", b"{", interaction().to_json()]):
        buffer.add(ARecord(value, offset=offset), JUDGE, now=0.0)
    assert buffer.statuses(2) == {"invalid": 1, "ok": 1}

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from models.errors import EventLogError, ImportFailed
from models.schemas import Interaction, Item
from models.settings import Settings
from streams import dead_letter_replay as letters
from streams.codec import (
    DEAD_LETTER_BYTES,
    FORWARDED_HEADER,
    HEADER_BYTES,
    HEADERS_LEFT_OUT,
    KEY_BYTES,
    Rejected,
    forwarded_headers,
    id_of,
    key_of,
)
from streams.dead_letter_replay import (
    Correction,
    DeadLetter,
    RecordOrigin,
    ReplayedList,
    ReplayResult,
)
from streams.dead_letters import dead_letter
from streams.event_log import SegmentLog
from tests.streams.logged import NOW, ARecord, record

HERE = RecordOrigin("interactions", 1, 7)


def interaction(**fields: Any) -> Interaction:
    values = {"event_id": "e", "user_id": "ann", "item_id": "i", "type": "click"}
    return Interaction.model_validate(values | {"timestamp": NOW} | fields)


def letter_of(value: bytes | None, reason: str = "not_json") -> DeadLetter:
    """Through the tracker's door and back."""
    refused = ARecord("x-interactions", 1, 7, value, key=b"ann")
    sent = dead_letter(refused, Rejected(reason, "why"))
    told = ARecord("x-dead-letters", 0, 3, sent.value, key=sent.key, headers=tuple(sent.headers))
    return letters.parse(told, "x-")


def test_a_dead_letter_says_where_the_original_stood_and_why_it_was_refused():
    letter = letter_of(b"{")
    assert (letter.origin, letter.reason, letter.detail) == (HERE, "not_json", "why")
    assert (letter.kafka_time, letter.key, letter.value, letter.whole) == (NOW, b"ann", b"{", True)


def test_of_a_long_original_the_beginning_is_kept():
    letter = letter_of(b"x" * 1_000_000, "too_large")
    assert (len(letter.value), letter.size, letter.whole) == (DEAD_LETTER_BYTES, 1_000_000, False)
    outcome = letters.as_it_was(letter)
    assert isinstance(outcome, ReplayResult)
    assert (outcome.result, outcome.origin) == ("refused", HERE)


def test_of_a_long_key_the_beginning_is_kept_with_size_and_digest_of_the_whole():
    key = b"a" * 13_000_000
    sent = dead_letter(ARecord("interactions", 0, 1, b"{", key), Rejected("not_json", "why"))
    told = dict(sent.headers)
    assert sent.key == key[:KEY_BYTES]
    assert told["palate-key-size"] == b"13000000"
    assert told["palate-key-sha256"] == hashlib.sha256(key).hexdigest().encode()


def test_the_key_of_an_id_is_kept_as_it_is():
    key = ("日" * 256).encode()
    sent = dead_letter(ARecord("interactions", 0, 1, b"{", key), Rejected("not_json", "why"))
    assert sent.key == key
    assert not any(name.startswith("palate-key") for name, _ in sent.headers)


def test_headers_too_long_to_be_sent_on_are_left_out_and_counted():
    short, long = ("trace", b"1"), ("blob", b"x" * (HEADER_BYTES + 1))
    assert forwarded_headers([short]) == [short, (FORWARDED_HEADER, b"1")]
    assert forwarded_headers([long, short, long]) == [
        *(short, (HEADERS_LEFT_OUT, b"2"), (FORWARDED_HEADER, b"1")),
    ]
    assert len(forwarded_headers([("n", b"x" * 1000)] * 12_000)) < 70


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"a" * (KEY_BYTES + 1)])
def test_a_key_that_is_no_id_is_refused(key):
    assert isinstance(id_of(key), Rejected)


def test_a_record_without_headers_is_its_own_origin():
    letter = letters.parse(ARecord("x-dead-letters", 2, 5, b"?"), "x-")
    assert letter.origin == RecordOrigin("dead-letters", 2, 5)
    assert isinstance(letters.as_it_was(letter), ReplayResult)


def test_the_original_bytes_go_back_as_they_were():
    value = interaction().to_json()
    assert letters.as_it_was(letter_of(value, "future")) == Correction(HERE, value)


def test_bytes_that_are_not_the_originals_do_not():
    letter = letter_of(b"abc")
    changed = DeadLetter(
        letter.origin, letter.reason, "", NOW, 3, hashlib.sha256(b"xyz").hexdigest(), None, b"abc"
    )
    assert isinstance(letters.as_it_was(changed), ReplayResult)


def test_the_log_tells_of_refused_records_too(make_settings):
    settings = make_settings(kafka={"partitions": 1})
    log = SegmentLog(settings.log_dir)
    good = interaction().to_json()
    record(log, settings, [ARecord("interactions", 0, 0, good, b"ann")])
    record(log, settings, [ARecord("interactions", 0, 1, b"{", b"ann")])
    (letter,) = letters.from_log(log)
    assert (letter.origin, letter.reason) == (RecordOrigin("interactions", 0, 1), "not_json")
    assert letters.as_it_was(letter) == Correction(letter.origin, b"{")


def test_letters_are_chosen_by_reason_and_topic():
    found = [letter_of(b"{"), letter_of(b"[", "future")]
    assert [letter.value for letter in letters.chosen(found, ["future"], [])] == [b"["]
    assert list(letters.chosen(found, [], ["items"])) == []
    assert list(letters.chosen(found, [], ["interactions"])) == found


# -- corrections -------------------------------------------------------------------------------


def corrections(path: Path, *lines: object) -> list[Correction]:
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return list(letters.read_corrections(path))


def test_a_correction_names_the_record_it_stands_for(tmp_path):
    line = HERE._asdict() | {"value": {"user_id": "ann"}, "reason": "ignored"}
    text = HERE._asdict() | {"value": '{"user_id":"ann"}'}
    expected = Correction(HERE, b'{"user_id":"ann"}')
    assert corrections(tmp_path / "c.jsonl", line, text) == [expected, expected]


@pytest.mark.parametrize(
    "line", [[], {"topic": "interactions"}, HERE._asdict() | {"topic": "x", "value": {}}]
)
def test_a_line_that_is_no_correction_is_named(tmp_path, line):
    good = HERE._asdict() | {"value": {}}
    with pytest.raises(ImportFailed, match="line 2"):
        corrections(tmp_path / "c.jsonl", good, line)


def test_what_would_be_refused_again_is_known_before_it_is_sent():
    ahead = Correction(HERE, interaction(timestamp=NOW + 700_000).to_json())
    found = letters.accepted(ahead, NOW, 600_000)
    assert isinstance(found, Rejected)
    assert found.reason == "future"
    assert letters.accepted(ahead, NOW + 100_000, 600_000) == interaction(timestamp=NOW + 700_000)
    assert isinstance(letters.accepted(Correction(HERE, b"{"), NOW, 600_000), Rejected)


def test_the_key_is_the_one_that_the_topic_asks_for():
    assert key_of(interaction()) == b"ann"
    assert key_of(Item(item_id="i", title="t")) == b"i"


class FakeProducer:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes | None]] = []

    async def send_and_wait(self, topic, value, *, key, partition, headers):
        self.sent.append((topic, value, key))


def replay(
    settings: Settings, sender: FakeProducer, *found: Correction | ReplayResult
) -> list[str]:
    async def outcomes() -> list[str]:
        replayed = letters.replayed_list(settings)
        return [o.result async for o in letters.replay(found, settings, sender, replayed)]

    return asyncio.run(outcomes())


def test_a_second_replay_sends_nothing_twice(make_settings):
    settings, sender = make_settings(), FakeProducer()
    value = interaction().to_json()
    wrong = Correction(RecordOrigin("interactions", 0, 8), b"{")
    assert replay(settings, sender, Correction(HERE, value), wrong) == ["sent", "refused"]
    assert replay(settings, sender, Correction(HERE, value)) == ["already sent"]
    assert sender.sent == [(settings.topic("interactions"), value, b"ann")]


def test_a_broken_line_in_the_list_of_what_was_sent_is_named(tmp_path):
    replayed = ReplayedList(tmp_path / "replayed.jsonl")
    replayed.add(HERE)
    assert HERE in ReplayedList(replayed.path)
    replayed.path.write_bytes(replayed.path.read_bytes() + b"{")
    with pytest.raises(EventLogError, match="line 2"):
        ReplayedList(replayed.path)

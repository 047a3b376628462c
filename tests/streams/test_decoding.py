"""No value, key, header or time of any topic makes decoding, applying or recording raise."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from models.schemas import TOPIC_SCHEMAS, Interaction, to_epoch_ms, to_rfc3339
from models.settings import WindowSettings, load_settings
from streams.codec import (
    HEADER_BYTES,
    KEY_BYTES,
    MAX_VALUE_BYTES,
    SMALLEST_LIMIT,
    Rejected,
    Removal,
    decode,
    decode_interaction,
    decode_keyed,
    forwarded_headers,
    key_of,
    partition_for,
)
from streams.dead_letters import dead_letter
from streams.importers.layouts import FORMATS
from streams.importers.rows import Kind, Unusable
from streams.replay import Replay
from streams.tracker.reducer import Arrival, apply_interactions, whole_or_not
from streams.tracker.state import User, store
from tests.fuzz.roles import Roles
from tests.fuzz.seeds import NOW, seeds
from tests.streams.logged import ARecord

PARTITIONS = load_settings().kafka.partitions
NUMBERS = st.one_of(
    st.sampled_from(["1e400", "-1e400", "Infinity", "-Infinity", "NaN", "-0.0", "1E-400"]),
    st.integers(min_value=-(2**130), max_value=2**130).map(str),
    st.integers(min_value=300, max_value=5_000).map(lambda n: "9" * n),
    st.floats().map(repr),
    st.from_regex(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,6})?", fullmatch=True),
)
STRINGS = st.one_of(
    st.text().map(lambda text: orjson.dumps(text).decode()),
    st.sampled_from(['"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\ud83d\\ude00"']),
    st.datetimes(timezones=st.timezones()).map(lambda t: f'"{t.isoformat()}"'),
)
JSON = st.recursive(
    st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda found: f"[{','.join(found)}]"),
        st.lists(st.tuples(STRINGS, inner), max_size=4).map(
            lambda found: "{" + ",".join(f"{name}:{value}" for name, value in found) + "}"
        ),
    ),
    max_leaves=12,
)
TIMES = st.one_of(
    st.just(NOW), st.sampled_from([-1, 0, 2**63 - 1, -(2**63)]), st.integers(-(2**63), 2**63 - 1)
)


@st.composite
def nearly_messages(draw: st.DrawFn, topic: str) -> bytes:
    """A message of the topic with some of its fields, at any depth, exchanged for any JSON."""
    fields = orjson.loads(draw(st.sampled_from(seeds(topic))).to_json())
    words = []
    for _ in range(draw(st.integers(1, 3))):
        place: Any = fields
        name = draw(st.sampled_from(sorted(place)))
        while isinstance(place[name], dict) and place[name] and draw(st.booleans()):
            place = place[name]
            name = draw(st.sampled_from(sorted(place)))
        words.append(draw(JSON))
        place[name] = f"@{len(words) - 1}@"
    text = orjson.dumps(fields)
    for number, word in enumerate(words):
        text = text.replace(b'"@%d@"' % number, word.encode("utf-8", "surrogatepass"))
    return text


@pytest.mark.parametrize("topic", TOPIC_SCHEMAS)
@examples(max_examples=30)
@given(data=st.data())
def test_a_message_with_any_json_in_it_is_refused_or_handled_by_every_role(topic, data):
    roles = Roles(load_settings())
    value = data.draw(nearly_messages(topic))
    found = decode(value, TOPIC_SCHEMAS[topic])
    key = b"ann0" if isinstance(found, Rejected) else key_of(found)
    home = 0 if topic == "releases" else partition_for(key, PARTITIONS)
    for offset in range(16):  # one in sixteen goes the slow ways, too
        roles.take(topic, ARecord(topic, home, offset, value, key, data.draw(TIMES)))
    roles.finish()


@pytest.mark.parametrize("topic", [*TOPIC_SCHEMAS, "dead-letters"])
@examples(max_examples=30)
@given(
    value=st.none() | st.binary(max_size=400) | JSON.map(lambda t: t.encode("utf-8", "ignore")),
    key=st.none() | st.binary(max_size=40) | st.just(b"k" * 5_000),
    headers=st.lists(st.tuples(st.text(max_size=9), st.none() | st.binary(max_size=9)), max_size=3),
    place=st.tuples(st.integers(0, 3), st.integers(0, 2**53)),
    time=TIMES,
)
def test_any_bytes_anywhere_are_refused_or_handled_by_every_role(
    topic, value, key, headers, place, time
):
    record = ARecord(topic, *place, value, key, time, tuple(headers))
    roles = Roles(load_settings())
    roles.take(topic, record)
    roles.finish()


@pytest.mark.parametrize("topic", TOPIC_SCHEMAS)
@given(number=NUMBERS, data=st.data())
@example(number="1e400", data=None)
@example(number="9223372036854775808", data=None)
def test_a_number_of_any_size_is_refused_by_the_decoder_itself(topic, number, data):
    fields = orjson.loads(seeds(topic)[0].to_json())
    names = sorted(fields) if data is None else [data.draw(st.sampled_from(sorted(fields)))]
    for name in names:
        marked = orjson.dumps(fields | {name: "@"}).replace(b'"@"', number.encode())
        found = decode(marked, TOPIC_SCHEMAS[topic])
        if not isinstance(found, Rejected):
            assert decode(found.to_json(), type(found)) == found


# -- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2025-11-26t10:00:00z", "2025-11-26T10:00:00.000Z"),
        ("2025-11-26 10:00:00z", "2025-11-26T10:00:00.000Z"),
        ("2025-11-26T10:00:00.123456789Z", "2025-11-26T10:00:00.123Z"),
        ("2025-11-26T10:00:00-00:00", "2025-11-26T10:00:00.000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("2016-12-31t18:59:60.5-05:00", "2017-01-01T00:00:00.500Z"),
        ("2017-01-01T05:29:60+05:30", "2017-01-01T00:00:00.000Z"),
        ("2025-11-26T15:45:00+05:45", "2025-11-26T10:00:00.000Z"),
    ],
)
def test_all_that_rfc_3339_allows_is_read(written, meant):
    assert to_rfc3339(to_epoch_ms(written)) == meant


@pytest.mark.parametrize(
    "written",
    [
        "2025-11-26x10:00:00Z",
        "2025-11-26_10:00:00Z",
        "2025-11-26T10:00:00 Z",
        "2025-W48-3T10:00:00Z",
        "20251126T100000Z",
        "2025-330T10:00:00Z",
        "2025-11-26T10:00Z",
        "2025-11-26T10Z",
        "2025-11-26",
        "2025-11-26T10:00:00",
        "2025-11-26T10:00:00,5Z",
        "2025-11-26T10:00:00.Z",
        "2025-11-26T10:00:00+01",
        "2025-11-26T10:00:00+0100",
        "2025-11-26T10:00:00+01:00:30",
        "2025-11-26T10:00:00+01:60",
        "2025-11-26T10:00:00+24:00",
        "2025-11-26T24:00:00Z",
        "2025-11-26T10:15:60Z",
        "2025-11-26T10:15:61Z",
        "2016-12-31T23:59:60+01:00",
        "٢٠٢٥-11-26T10:00:00Z",
        "2025-11-26T10:00:00Z\n",
    ],
)
def test_nothing_else_is_a_time(written):
    row = {"user_id": "u", "item_id": "i", "type": "view", "timestamp": written}
    (layout,) = FORMATS["generic"].layouts[Kind.INTERACTIONS]
    refused = layout.start()(row)
    assert isinstance(refused, Unusable)
    assert refused.detail.startswith("timestamp: ")
    decoded = decode(orjson.dumps(row | {"event_id": "e"}), Interaction)
    assert isinstance(decoded, Rejected)
    assert decoded.detail.startswith("timestamp: ")


@pytest.mark.parametrize("topic", TOPIC_SCHEMAS)
def test_null_means_absent_as_clients_of_many_languages_write_it(topic: str) -> None:
    """Whatever a field is when it is absent."""
    schema = TOPIC_SCHEMAS[topic]
    sent = orjson.loads(seeds(topic)[0].to_json())
    optional = [name for name, field in schema.model_fields.items() if not field.is_required()]
    without = {name: value for name, value in sent.items() if name not in optional}
    if topic == "interactions":
        without["type"] = "view"

    assert optional
    assert decode(orjson.dumps(without | dict.fromkeys(optional)), schema) == decode(
        orjson.dumps(without), schema
    )
    for name in without:
        assert isinstance(decode(orjson.dumps(without | {name: None}), schema), Rejected)


@pytest.mark.parametrize("field", ["rating", "quantity", "price", "position"])
@pytest.mark.parametrize("value", [True, False, "5", "", "x"])
def test_only_numbers_are_numbers(field, value):
    event = {"event_id": "e", "user_id": "u", "item_id": "i", "type": "view", "timestamp": NOW}
    found = decode(orjson.dumps(event | {field: value}), Interaction)
    assert isinstance(found, Rejected)
    assert found.detail.startswith(f"{field}: ")
    assert getattr(decode(orjson.dumps(event | {field: 5}), Interaction), field) == 5
    assert getattr(decode(orjson.dumps(event | {field: 5.0}), Interaction), field) == 5


@given(
    st.datetimes(min_value=datetime(1990, 1, 2)),
    st.sampled_from("Tt "),
    st.sampled_from(["Z", "z", "+00:00", "-00:00"]),
)
def test_upper_and_lower_case_mean_the_same(moment, between, zone):
    text = moment.strftime("%Y-%m-%d%H:%M:%S")
    plain = f"{text[:10]}T{text[10:]}Z"
    if moment.year < 2100:
        assert to_epoch_ms(f"{text[:10]}{between}{text[10:]}{zone}") == to_epoch_ms(plain)


def record(user: str = "ann", **fields: object) -> ARecord:
    event = {"event_id": "e", "user_id": user, "item_id": "i", "type": "purchase"}
    value = Interaction.model_validate(event | {"timestamp": NOW}).to_json()
    home = partition_for(user.encode(), PARTITIONS)
    return replace(ARecord("interactions", home, 0, value, user.encode()), **fields)


@pytest.mark.parametrize("time", [-1, None, 0, 5_000, 2**63 - 1, -(2**63)])
def test_a_record_without_a_time_says_so_and_names_the_topics_setting(time):
    found = decode_interaction(record(timestamp=time), PARTITIONS, 10**18)
    assert isinstance(found, Rejected)
    assert found.reason == "no_time"
    assert "message.timestamp.type=LogAppendTime" in found.detail
    assert ("no time" in found.detail) == (time in (-1, None))


# -- keys and partitions -----------------------------------------------------------------------


@pytest.mark.parametrize("topic", [t for t in TOPIC_SCHEMAS if t not in ("interactions",)])
def test_a_key_has_one_order_that_of_its_own_partition(topic):
    schema, good = TOPIC_SCHEMAS[topic], seeds(topic)[0]
    home = 0 if topic == "releases" else partition_for(key_of(good), PARTITIONS)
    at_home = ARecord(topic, home, 0, good.to_json(), key_of(good))
    assert decode_keyed(at_home, schema, PARTITIONS) == good
    elsewhere = replace(at_home, partition=(home + 1) % PARTITIONS)
    other_key = replace(at_home, key=b"somebody")
    for refused in (elsewhere, other_key, replace(elsewhere, value=None)):
        found = decode_keyed(refused, schema, PARTITIONS)
        assert isinstance(found, Rejected)
        assert found.reason in ("wrong_key", "empty")


def test_a_removal_counts_where_its_key_belongs_and_nowhere_else():
    home = partition_for(b"85123A", PARTITIONS)
    found = {
        partition: decode_keyed(
            ARecord("items", partition, 0, None, b"85123A"), TOPIC_SCHEMAS["items"], PARTITIONS
        )
        for partition in range(PARTITIONS)
    }
    assert found.pop(home) == Removal("85123A")
    assert {one.reason for one in found.values()} == {"wrong_key"}
    assert all("murmur2" in one.detail for one in found.values())


# -- sizes -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(max_size=50), st.none() | st.binary(max_size=9_000))))
def test_what_is_sent_on_or_buried_fits_into_the_smallest_limit(headers):
    overhead = 1_000  # of a batch with one record
    sent_on = sum(
        len(name.encode()) + len(value or b"") for name, value in forwarded_headers(headers)
    )
    assert sent_on <= HEADER_BYTES + 100
    assert MAX_VALUE_BYTES + KEY_BYTES + sent_on + overhead < SMALLEST_LIMIT
    big = ARecord("t" * 249, 0, 0, b"x" * 3_000_000, b"k" * 20_000, headers=tuple(headers))
    letter = dead_letter(big, Rejected("invalid", "d" * 500))
    size = len(letter.key) + len(letter.value) + sum(len(n) + len(v) for n, v in letter.headers)
    assert size + overhead < SMALLEST_LIMIT


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"i"])
def test_a_dead_letter_always_has_what_a_producer_needs(key):
    letter = dead_letter(ARecord("items", 0, 0, None, key), Rejected("wrong_key", "why"))
    assert (letter.key, letter.value) != (None, None)
    assert letter.value == (b"" if key is None else None)


# -- states are applied whole or not ----------------------------------------------------------


def test_a_user_is_as_before_if_applying_fails_half_way(monkeypatch):
    user, spec = User("ann"), WindowSettings()
    good = decode(record().value, Interaction)
    apply_interactions(user, [Arrival(good, 0, NOW)], spec, Counter())
    list(store(user, [(NOW, "e")]))
    before = (replace_head(user), user.history)
    other = good.model_copy(update={"event_id": "e2"})

    def fail() -> None:
        with whole_or_not(user):
            apply_interactions(user, [Arrival(other, 1, NOW)], spec, Counter())
            assert len(user.history) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (replace_head(user), user.history) == before
    replayed = Replay(spec)
    replayed.take(good, 0)
    assert user.history == replayed.history("ann")


def replace_head(user: User) -> tuple[object, ...]:
    return tuple(getattr(user.head, name) for name in user.head.__struct_fields__)

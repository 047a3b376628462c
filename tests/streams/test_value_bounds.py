"""A value of under a megabyte costs little, whatever stands in whichever field of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import orjson
import pytest
from pydantic import BaseModel, ValidationError

from models.schemas import MAX_PARTS, TOPIC_SCHEMAS, Message, RecommendedItem
from streams.codec import MAX_VALUE_BYTES, Rejected, decode
from tests.fuzz.seeds import seeds

ERRORS = 2 * MAX_PARTS  # of one value: some for each field, and one for each part of a score
FOR_A_BYTE = 45  # `[],` becomes an empty list and a pointer to it
PLACE = b'"@"'


class Place(NamedTuple):
    """A field that holds others, by the names that lead to it; a number stands for a list."""

    topic: str
    path: tuple[str | int, ...]


def places(kind: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every list and dict inside a type, at any depth."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from places(args[0], path)
    elif origin in (tuple, list, dict, set, frozenset):
        yield path
        for inner in args if origin is not dict else args[1:]:
            yield from places(inner, (*path, "a" if origin is dict else 0))
    elif NoneType in args:
        yield from places(next(arg for arg in args if arg is not NoneType), path)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from places(field.annotation, (*path, name))


PLACES = [
    Place(topic, path)
    for topic, schema in TOPIC_SCHEMAS.items()
    for path in [("unknown",), *dict.fromkeys(places(schema))]
]
CONTENTS = [b"{}", b"[]", b"1", b'"x"', b"null", b'{"a":1}', b"[[]]"]


def value_with(place: Place, inside: bytes, whole: bool) -> bytes:
    """A message, valid elsewhere or without any other field, with `inside` at the place."""
    good = orjson.loads(seeds(place.topic)[0].to_json()) if whole else {}
    return orjson.dumps(_placed(good, place.path)).replace(PLACE, inside)


def _placed(holder: Any, path: tuple[str | int, ...]) -> Any:
    if not path:
        return "@"
    name, *others = path
    if isinstance(name, int):
        first = holder[0] if isinstance(holder, list) and holder else {}
        return [_placed(first, tuple(others))]
    known = holder if isinstance(holder, dict) else {}
    return {**known, name: _placed(known.get(name), tuple(others))}


def a_list(content: bytes, size: int) -> bytes:
    return b"[" + b",".join([content] * (size // (len(content) + 1))) + b"]"


def a_dict(content: bytes, size: int) -> bytes:
    count = size // (len(content) + 9)
    return b"{" + b",".join(b'"%05d":%s' % (n, content) for n in range(count)) + b"}"


def name_of(place: Place) -> str:
    return ".".join(map(str, (place.topic, *place.path)))


def test_every_list_and_dict_of_the_schemas_is_among_the_places() -> None:
    found = {name_of(place) for place in PLACES}
    assert {
        *("items.categories", "profiles.vector", "profiles.sections.stable.0.evidence"),
        *("profile-requests.windows.long", "profile-requests.edits.replaced.0"),
        *("recommendations.items.0.parts", "recommendations.items.0.reason.evidence"),
    } <= found


@pytest.mark.parametrize("whole", [True, False], ids=["valid elsewhere", "nothing else"])
@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_a_long_list_or_dict_anywhere_makes_few_errors(place: Place, whole: bool) -> None:
    for content in CONTENTS:
        for inside in (a_list(content, 8_000), a_dict(content, 8_000)):
            value = value_with(place, inside, whole)
            try:
                TOPIC_SCHEMAS[place.topic].model_validate_json(value)
            except ValidationError as error:
                assert error.error_count() <= ERRORS, content  # noqa: PT017
            found = decode(value, TOPIC_SCHEMAS[place.topic])
            assert not isinstance(found, Rejected) or len(found.detail) <= 500


@pytest.mark.parametrize("place", PLACES, ids=name_of)
def test_a_long_list_anywhere_takes_little_memory(place: Place) -> None:
    for content in CONTENTS[:4]:
        value = value_with(place, a_list(content, 20_000), whole=False)
        assert peak(value, TOPIC_SCHEMAS[place.topic]) <= FOR_A_BYTE * len(value), content


@pytest.mark.parametrize(
    ("topic", "path", "content"),
    [
        ("profile-requests", ("windows", "long"), b"{}"),
        ("recommendations", ("items",), b"{}"),
        ("profiles", ("vector",), b"[]"),
        ("items", ("categories",), b"1"),
    ],
)
def test_so_does_the_largest_value(topic: str, path: tuple[str, ...], content: bytes) -> None:
    value = value_with(Place(topic, path), a_list(content, MAX_VALUE_BYTES - 2_000), whole=True)
    assert len(value) <= MAX_VALUE_BYTES
    assert peak(value, TOPIC_SCHEMAS[topic]) <= FOR_A_BYTE * MAX_VALUE_BYTES


def peak(value: bytes, schema: type[Message]) -> int:
    tracemalloc.start()
    try:
        decode(value, schema)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_of_very_many_errors_the_number_is_told() -> None:
    class Words(Message):
        words: list[int]  # no field of a topic: it does not stop at the first

    found = decode(orjson.dumps({"words": ["x"] * 5_000}), Words)
    assert found == Rejected("invalid", "5000 values are wrong")
    few = decode(orjson.dumps({"words": ["x"]}), Words)
    assert isinstance(few, Rejected)
    assert few.detail.startswith("words.0: Input should be a valid integer")


def test_a_score_of_many_parts_is_read() -> None:
    fields = orjson.loads(seeds("recommendations")[0].to_json())
    fields["items"][0]["parts"] = {f"part {n}": n / 7 for n in range(MAX_PARTS)}
    found = decode(orjson.dumps(fields), TOPIC_SCHEMAS["recommendations"])
    assert not isinstance(found, Rejected)
    (item,) = found.items
    assert isinstance(item, RecommendedItem)
    assert len(item.parts) == MAX_PARTS


@pytest.mark.parametrize("topic", TOPIC_SCHEMAS)
def test_decoding_is_that_of_json_by_the_schema(topic: str) -> None:
    for message in seeds(topic):
        assert decode(message.to_json(), TOPIC_SCHEMAS[topic]) == message
    for value, detail in ((b"{", "Invalid JSON: "), (b"[]", "Input should be an object")):
        found = decode(value, TOPIC_SCHEMAS[topic])
        assert isinstance(found, Rejected)
        assert found.reason == "not_json"
        assert found.detail.startswith(detail)
    listed = decode(b'{"item_id":"i","title":"t","categories":{}}', TOPIC_SCHEMAS["items"])
    assert listed == Rejected("invalid", "categories: Input should be a valid array")
    nested = decode(b'{"windows":1,"edits":{"pinned":1}}', TOPIC_SCHEMAS["profile-requests"])
    assert isinstance(nested, Rejected)
    assert "windows: Input should be an object" in nested.detail

"""What generic files hold comes out as it went in, whatever the file type."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ImportFailed
from models.schemas import EARLIEST_MS, LATEST_MS, Interaction, InteractionType, Item
from models.settings import ABSENT_WORDS
from streams.importers.rows import Kind
from streams.importers.survey import survey
from streams.importers.values import is_absent

# Blank text and words like "none" are how tables write "absent", and UTF-8 has no lone surrogates.
said = st.text(st.characters(exclude_characters="\x00", codec="utf-8"), min_size=1, max_size=30)
words = said.filter(lambda text: not is_absent(text, ABSENT_WORDS))
numbers = st.floats(-1e9, 1e9, allow_nan=False)

interactions = st.builds(
    Interaction,
    event_id=words,
    user_id=words,
    item_id=words,
    type=st.sampled_from(InteractionType),
    timestamp=st.integers(EARLIEST_MS, LATEST_MS - 1),
    rating=st.floats(0, 5),  # type rating must have them
    review=st.none() | words,
    quantity=st.none() | numbers,
    price=st.none() | numbers,
    session_id=st.none() | words,
    recommendation_id=st.none() | words,
    position=st.none() | st.integers(0, 100_000),
)
items = st.builds(
    Item,
    item_id=words,
    title=words,
    brand=st.none() | words,
    categories=st.lists(words, max_size=4).map(tuple),
    description=st.none() | words,
    price=st.none() | numbers,
    available=st.booleans(),
)

Message = Interaction | Item


def as_csv(messages: list[Message]) -> bytes:
    text = io.StringIO(newline="")
    fields = list(type(messages[0]).model_fields)
    writer = csv.DictWriter(text, fields, restval="")
    writer.writeheader()
    for row in map(columns, messages):
        if "categories" in row:
            row["categories"] = orjson.dumps(row["categories"]).decode()
        writer.writerow(row)
    return text.getvalue().encode()


def as_jsonl(messages: list[Message]) -> bytes:
    return b"".join(message.to_json() + b"\n" for message in messages)


def as_parquet(messages: list[Message]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    names = list(type(messages[0]).model_fields)
    table = {name: [columns(m).get(name) for m in messages] for name in names}
    pyarrow.parquet.write_table(pyarrow.table(table), sink)
    return bytes(sink.getvalue())


def columns(message: Message) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude_none=True)


WRITERS = {
    "a.csv": as_csv,
    "a.csv.gz": lambda messages: gzip.compress(as_csv(messages), 1),
    "a.jsonl": as_jsonl,
    "a.jsonl.gz": lambda messages: gzip.compress(as_jsonl(messages), 1),
    "a.parquet": as_parquet,
}


def read_back(name: str, messages: list[Message]) -> list[Message]:
    kind = Kind.ITEMS if isinstance(messages[0], Item) else Kind.INTERACTIONS
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(WRITERS[name](messages))
        opened = survey(path, kind, "generic")
        ready = list(opened.messages)
        assert opened.report.rejected == {}
    return [type(messages[0]).model_validate_json(message.value) for message in ready]


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40)
@given(messages=st.lists(interactions, min_size=1, max_size=5))
def test_interactions_survive_the_round_trip(name: str, messages: list[Message]) -> None:
    assert read_back(name, messages) == messages


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40)
@given(messages=st.lists(items, min_size=1, max_size=5))
def test_items_survive_the_round_trip(name: str, messages: list[Message]) -> None:
    assert read_back(name, messages) == messages


def outcome(path: Path) -> tuple[int, int] | str:
    """(messages, rows counted as accepted), or why the file was refused."""
    try:
        opened = survey(path, Kind.INTERACTIONS, "generic")
        return len(list(opened.messages)), opened.report.accepted.count
    except ImportFailed as error:
        return str(error)


@given(content=st.binary(max_size=300), name=st.sampled_from(list(WRITERS)))
def test_no_bytes_make_an_import_fail_in_an_unforeseen_way(content: bytes, name: str) -> None:
    header = b"user_id,item_id,type,timestamp\n" if "csv" in name else b""
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(header + content)

        became = outcome(path)

    assert str(path) in became if isinstance(became, str) else became[0] == became[1]

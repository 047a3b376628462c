"""Two ids that look or mean the same are named."""

from __future__ import annotations

import unicodedata

import pytest

from streams.importers.spellings import Spellings

ACCENTED = "café"


def doubts(*ids: str) -> list[str | None]:
    seen = Spellings("user_id")
    found = [seen.doubt(said) for said in ids]
    return [doubt[0] if doubt else None for doubt in found]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("77", "٧٧"), ("77", "７７"), ("1234", "1 234"), ("1234", "1,234"), ("1234", "1.234"),
        ("1234", "1'234"), ("1234", "1\u00a0234"), ("1234567", "1.234.567"), ("1.234", "1,234"),
        ("7.5", "7,5"), ("1234.5", "1.234,5"), ("-77", "\u221277"), ("1234", "١٬٢٣٤"),
    ],
)  # fmt: skip
def test_a_number_has_many_spellings(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        assert doubts(first, "5", second) == [None, None, "two spellings of one number"]


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("77,0", "an id written as a decimal number"),
        ("7,7E+01", "an id that a spreadsheet has shortened"),
        ("user\u200b", "an id with characters that do not show"),
        ("us\ufeffer", "an id with characters that do not show"),
        ("77\u200b", "an id with characters that do not show"),
        ("us\u00ader", "an id with characters that do not show"),
        ("ＡＢ１", "two spellings of one id"),
    ],
)
def test_a_spelling_that_nobody_means_is_doubted_by_itself(said: str, what: str) -> None:
    assert doubts(said) == [what]


def test_letters_composed_in_two_ways_are_two_ids() -> None:
    parts = unicodedata.normalize("NFD", ACCENTED)

    assert doubts(ACCENTED, parts, ACCENTED) == [None, "two spellings of one id", None]
    assert doubts(parts, "cafe", parts) == [None, None, None]


def test_the_doubt_shows_what_one_cannot_see() -> None:
    doubt = Spellings("item_id").doubt("user\u200b")

    assert doubt is not None
    assert doubt[1] == "item_id 'user\\u200b' is another than item_id 'user'"


@pytest.mark.parametrize(
    "said",
    [
        "A1", "a1", "v1.234", "1.23", "12,34", "12 34", "1-234", "0001",
        "می\u200cخواهم", "👩\u200d🍳", "é",
    ],
)  # fmt: skip
def test_ordinary_ids_are_no_doubt(said: str) -> None:
    assert doubts(said, "1234", "A2", said) == [None] * 4

"""The page about the texts, against counts written out."""

from __future__ import annotations

from collections.abc import Sequence

from models.profile.assembly import Composed
from models.schemas import Sections, SentenceCounts
from tests.trainer.users import session
from trainer.data.sessions import Session
from trainer.evaluation.texts import to_markdown

SESSIONS = [session("u", ("bag",), ("tin",)), session("v", ("box",), ("lamp",))]


class Reader:
    name = "reader"

    def texts(self, sessions: Sequence[Session]) -> list[str]:
        return ["one two", "one two three four"][: len(sessions)]


class Writer(Reader):
    name = "writer"

    def __init__(self, *counts: SentenceCounts) -> None:
        self._counts = counts

    def profiles(self, sessions: Sequence[Session]) -> list[Composed]:
        return [
            Composed(Sections(), "", one) for one, _ in zip(self._counts, sessions, strict=True)
        ]


def row_of(system: Reader) -> list[str]:
    page = to_markdown([system], SESSIONS, lambda text: len(text.split()))
    row = next(line for line in page.splitlines() if line.startswith(f"| {system.name} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_system_that_only_reads_has_a_length() -> None:
    assert row_of(Reader()) == ["reader", "3", "4", "", ""]


def test_a_system_that_writes_says_how_much_is_borne_out() -> None:
    counts = SentenceCounts(kept=3, rejected=1, extractive=0), SentenceCounts(kept=1, extractive=4)

    _, _, _, borne_out, by_the_model = row_of(Writer(*counts))

    assert borne_out.startswith("0.875 [0.750, ")  # mean of 3 / 4 and 1 / 1
    assert by_the_model == "0.500"  # 4 of 8 sentences


def test_users_for_whom_nothing_was_written_count_in_no_share() -> None:
    nothing, one = SentenceCounts(extractive=2), SentenceCounts(kept=1)

    assert row_of(Writer(nothing, one))[3:] == ["1.000 [1.000, 1.000]", "0.333"]

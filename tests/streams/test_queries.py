"""What a history asks of ranking."""

from __future__ import annotations

from models.ranking.queries import Recent
from models.schemas import InteractionType
from models.settings import WindowSettings
from streams.queries import query_of
from streams.windows import HistoryEntry

CODES = {kind.value: code for code, kind in enumerate(InteractionType)}


def entry(at: int, item: str, kind: str, **fields: object) -> HistoryEntry:
    return HistoryEntry(at, f"e{at}", item, CODES[kind], at, **fields)  # type: ignore[arg-type]


def test_a_query_has_the_newest_positives_and_what_the_history_leaves_out() -> None:
    history = (
        entry(1, "tea", "purchase"),
        entry(2, "cup", "view"),
        entry(3, "mug", "purchase"),
        entry(4, "mug", "cancel"),
        entry(5, "hat", "rating", rating=1.0),
        entry(6, "sock", "hide"),
        entry(7, "soap", "impression"),
    )
    query = query_of("ann", history, WindowSettings())

    assert query.recent == [Recent("cup", 0.2, "e2", 2), Recent("tea", 1.0, "e1", 1)]
    assert query.seen == {"tea", "cup"}
    assert query.hidden == {"mug", "hat", "sock"}


def test_a_query_looks_at_the_newest_hundred_positives() -> None:
    history = tuple(entry(at, f"i{at}", "purchase") for at in range(150))
    query = query_of("ann", history, WindowSettings())

    assert [one.item_id for one in query.recent] == [f"i{at}" for at in range(149, 49, -1)]
    assert len(query.seen) == 150

"""Users and items for the tests of learning: themes of items, and users who stay with theirs."""

from __future__ import annotations

from models.schemas import InteractionType
from streams.windows import History, HistoryEntry
from trainer.data.sessions import Session

HOUR_MS = 3_600_000
NOW_MS = 1_300_000_000_000
_PURCHASE = tuple(InteractionType).index(InteractionType.PURCHASE)


def history(items: tuple[str, ...]) -> History:
    """Purchases an hour apart, oldest first, the last an hour before NOW_MS."""
    first = NOW_MS - len(items) * HOUR_MS
    return tuple(
        HistoryEntry(first + n * HOUR_MS, f"event-{n}", item, _PURCHASE, n)
        for n, item in enumerate(items)
    )


def session(user_id: str, bought: tuple[str, ...], targets: tuple[str, ...]) -> Session:
    """A user who bought `bought` and goes on with `targets`."""
    read = len(bought)
    return Session(
        user_id=user_id,
        partition=0,
        as_of=NOW_MS,
        applied_offset=read - 1,
        history=history(bought),
        targets=targets,
        target_time=NOW_MS,
        last_target_time=NOW_MS,
        last_target_offset=read + len(targets) - 1,
    )

"""Records of `items` and `profiles` → changes of their tables: pure, no embedder, no disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ports import VectorRow
from models.schemas import Item, Profile
from models.text import embedding_text, item_text
from streams.codec import Record, Rejected, Removal, decode_keyed

Vector = NDArray[np.float32]  # [dimension]


@dataclass(frozen=True, slots=True)
class Change:
    """What one record asks of a table: a row, or with `text` None its removal."""

    id: str
    text: str | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    vector: Vector | None = None  # comes with the record; None: to be embedded
    order: tuple[int, ...] = ()  # a row with a greater one stays


def item_change(record: Record, partitions: int, description_chars: int) -> Change | Rejected:
    """One record of topic `items`; a null value removes the item."""
    item = decode_keyed(record, Item, partitions)
    if isinstance(item, Rejected):
        return item
    if isinstance(item, Removal):
        return Change(item.id, None)
    attributes = {"label": item_text(item), "available": item.available}
    return Change(item.item_id, embedding_text(item, description_chars), attributes)


def profile_change(
    record: Record, partitions: int, takes_over: Callable[[str], bool]
) -> Change | Rejected:
    """One record of topic `profiles`; its vector is kept if `takes_over` of its release."""
    profile = decode_keyed(record, Profile, partitions)
    if isinstance(profile, Rejected):
        return profile
    if isinstance(profile, Removal):
        return Change(profile.id, None)
    own = len(profile.vector) > 0 and takes_over(profile.vector_release)
    return Change(
        profile.user_id,
        profile.text,
        {"profile_id": profile.profile_id, "as_of": profile.as_of, "order": _order(profile)},
        np.array(profile.vector, np.float32) if own else None,
        tuple(_order(profile)),
    )


def _order(profile: Profile) -> list[int]:
    """Greater is newer (property 4); a model's text beats its own stand-in."""
    return [
        profile.applied_offset,
        profile.edits_offset,
        profile.version,
        int(not profile.fallback),
    ]


def newest(changes: Iterable[Change]) -> list[Change]:
    """The last change of each id that is not older than one before it."""
    kept: dict[str, Change] = {}
    for change in changes:
        known = kept.get(change.id)
        if known is None or change.text is None or change.order >= known.order:
            kept[change.id] = change
    return list(kept.values())


@dataclass(frozen=True, slots=True)
class TableChanges:
    """What a batch of changes comes to, given the rows that are there."""

    rows: list[VectorRow]  # vector known
    to_embed: list[Change]
    to_remove: list[str]


def plan(changes: Iterable[Change], known: Mapping[str, VectorRow]) -> TableChanges:
    """Leave out what is there already; embed only texts that are new."""
    rows: list[VectorRow] = []
    to_embed: list[Change] = []
    to_remove: list[str] = []
    for change in newest(changes):
        row = known.get(change.id)
        if change.text is None:
            to_remove += [change.id] if row else []
        elif row and (_same(row, change) or tuple(row.attributes.get("order", ())) > change.order):
            continue
        elif change.vector is not None:
            rows.append(row_of(change, change.vector))
        elif row and row.text == change.text:
            rows.append(row_of(change, row.vector))
        else:
            to_embed.append(change)
    return TableChanges(rows, to_embed, to_remove)


def _same(row: VectorRow, change: Change) -> bool:
    return row.text == change.text and dict(row.attributes) == dict(change.attributes)


def row_of(change: Change, vector: Vector) -> VectorRow:
    """The row that a change asks for."""
    return VectorRow(change.id, vector, change.text or "", 0, change.attributes)

"""Format `generic`: Palate's own wire fields as columns or JSON keys. Pure.

Differences from the wire: ids may be numbers, times may be datetimes (UTC if they have no
offset), empty cells are absent, `event_id` may be left out (it is then made from the row, so that
equal rows are one event), and `categories` may be text: a JSON list, or a path written with
`>` or `|`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from models.identity import digest
from models.schemas import Interaction, Item
from streams.importers.cells import Layout
from streams.importers.rows import Adapted, Unusable
from streams.importers.values import (
    build,
    from_json,
    is_absent,
    missing,
    number,
    text,
    wire_time,
)

_UNNAMED: Final = "unnamed"
_PATH_MARKS: Final = re.compile(r"\s*[>|]\s*")


def interaction(values: Mapping[str, Any]) -> Adapted:
    """One row with the fields of an Interaction."""
    absent = missing(values, "user_id", "item_id", "type", "timestamp")
    if absent:
        return absent
    fields = _present(values, Interaction)
    built = build(Interaction, **{"event_id": _UNNAMED, **fields})
    if "event_id" in fields or isinstance(built, Unusable):
        return built
    content = built.to_json().decode()
    return built.model_copy(update={"event_id": digest("generic", content)})


def item(values: Mapping[str, Any]) -> Adapted:
    """One row with the fields of an Item."""
    absent = missing(values, "item_id", "title")
    if absent:
        return absent
    return build(Item, **_present(values, Item))


def _present(values: Mapping[str, Any], schema: type[Interaction] | type[Item]) -> dict[str, Any]:
    known = schema.model_fields
    return {n: value for n, value in values.items() if n in known and not is_absent(value)}


def _said(value: Any) -> str:
    """Text as it was written, blanks too. Raises ValueError on what is no text."""
    return value if isinstance(value, str) else text(value) or ""


def _categories(written: Any) -> list[str]:
    """ "Beauty > Nails", "Beauty|Nails", '["Beauty", "Nails"]' or a list → the list."""
    if isinstance(written, str) and not written.lstrip().startswith("["):
        return [name for name in _PATH_MARKS.split(written.strip()) if name]
    listed = from_json(written) if isinstance(written, str) else written
    if not isinstance(listed, list | tuple):
        raise ValueError("neither a path nor a list")
    return [_said(name) for name in listed if not is_absent(name)]


ITEM_LAYOUTS: Final = (
    Layout(
        ("item_id", "title"),
        lambda: item,
        ids=("item_id",),
        texts={
            **dict.fromkeys(("title", "brand", "description"), _said),
            "categories": _categories,
            "available": lambda cell: cell,
        },
        optional={"price": number},
    ),
)
INTERACTION_LAYOUTS: Final = (
    Layout(
        ("user_id", "item_id", "type", "timestamp"),
        lambda: interaction,
        ids=("event_id", "user_id", "item_id", "session_id", "recommendation_id"),
        times={"timestamp": wire_time},
        numbers=("rating", "quantity", "position"),
        texts={"review": _said},
        optional={"price": number},
    ),
)

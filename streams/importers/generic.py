"""Format `generic`: Palate's own wire fields as columns or JSON keys. Pure.

Differences from the wire: ids may be numbers, times may be datetimes (UTC if they have no
offset), empty cells are absent, `event_id` may be left out (it is then made from the row, so that
equal rows are one event), and `categories` may be text: a JSON list, or a path written with
`>` or `|`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from models.identity import digest
from models.schemas import Interaction, Item
from streams.importers.rows import Adapted, Layout, Unusable
from streams.importers.values import INVALID, build, identifier, is_absent, missing, moment_to_ms

_ID_FIELDS: Final = ("event_id", "user_id", "item_id", "session_id", "recommendation_id")
_UNNAMED: Final = "unnamed"
_PATH_MARKS: Final = re.compile(r"\s*[>|]\s*")


def interaction(values: Mapping[str, Any]) -> Adapted:
    """One row with the fields of an Interaction."""
    absent = missing(values, "user_id", "item_id", "type", "timestamp")
    if absent:
        return absent
    fields = _present(values, Interaction)
    fields["timestamp"] = _time(fields["timestamp"])
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
    fields = _present(values, Item)
    if isinstance(fields.get("categories"), str):
        try:
            fields["categories"] = _categories(fields["categories"])
        except ValueError as error:
            return Unusable(INVALID, f"categories: {error}")
    return build(Item, **fields)


def _present(values: Mapping[str, Any], schema: type[Interaction] | type[Item]) -> dict[str, Any]:
    known = {name: values.get(name) for name in schema.model_fields}
    fields = {name: value for name, value in known.items() if not is_absent(value)}
    return fields | {name: identifier(fields[name]) for name in _ID_FIELDS if name in fields}


def _time(value: Any) -> Any:
    return moment_to_ms(value) if isinstance(value, datetime) else value


def _categories(written: str) -> list[str]:
    """ "Beauty > Nails", "Beauty|Nails" or '["Beauty", "Nails"]' → the list."""
    if written.lstrip().startswith("["):
        listed = orjson.loads(written)
        return [str(name) for name in listed]
    return [name for name in _PATH_MARKS.split(written.strip()) if name]


ITEM_LAYOUTS: Final = (Layout(("item_id", "title"), lambda: item),)
INTERACTION_LAYOUTS: Final = (
    Layout(("user_id", "item_id", "type", "timestamp"), lambda: interaction),
)

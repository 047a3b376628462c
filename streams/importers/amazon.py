"""Format `amazon-2023`: reviews and metadata of Amazon Reviews 2023 (McAuley Lab). Pure.

Reviews: rating, title, text, asin, parent_asin, user_id, timestamp (ms). The rating-only CSV files
of the same collection fit as well. Metadata: parent_asin, title, store, categories, description
(a list of paragraphs), price. Items are named by parent_asin, as the collection's authors advise.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from models.identity import digest
from models.schemas import MAX_DESCRIPTION_CHARS, MAX_REVIEW_CHARS, Interaction, Item
from streams.importers.cells import Layout
from streams.importers.rows import Adapted
from streams.importers.values import build, from_json, missing, price, text, wire_time

_BREAKS: Final = re.compile(r"<br\s*/?>", re.IGNORECASE)


def review(values: Mapping[str, Any]) -> Adapted:
    """One review → a rating with its text."""
    item_id = values.get("parent_asin") or values.get("asin")
    absent = missing({**values, "asin": item_id}, "user_id", "asin", "rating", "timestamp")
    if absent:
        return absent
    user_id, timestamp = values["user_id"], values["timestamp"]
    return build(
        Interaction,
        event_id=digest("amazon-2023", user_id, item_id, values.get("asin"), str(timestamp)),
        user_id=user_id,
        item_id=item_id,
        type="rating",
        timestamp=timestamp,
        rating=values["rating"],
        review=_joined((values.get("title"), values.get("text")), ". ", MAX_REVIEW_CHARS),
    )


def metadata(values: Mapping[str, Any]) -> Adapted:
    """One product → an item."""
    absent = missing(values, "parent_asin", "title")
    if absent:
        return absent
    return build(
        Item,
        item_id=values["parent_asin"],
        title=values["title"],
        brand=values.get("details") or values.get("brand") or values.get("store"),
        categories=tuple(values.get("categories") or ()),
        description=_joined(values.get("description") or (), " ", MAX_DESCRIPTION_CHARS),
        price=values.get("price"),
    )


def _brand(details: Any) -> str | None:
    """The brand that the details name, if they do; they may be written as JSON."""
    said = from_json(details) if isinstance(details, str) else details
    if said is None or (isinstance(said, list) and not said):
        return None
    if not isinstance(said, dict):
        raise ValueError(f"{details!r:.60} does not say what is what")
    named = said.get("Brand")
    return text(named[0] if isinstance(named, list) and len(named) == 1 else named)


def _plain_list(value: Any) -> list[str]:
    return [_plain(part) for part in (value if isinstance(value, list | tuple) else (value,))]


def _categories(written: Any) -> list[str]:
    """A list, or JSON of one, as tables have it; other text is one name."""
    is_json = isinstance(written, str) and written.lstrip().startswith("[")
    return _plain_list(from_json(written) if is_json else written)


def _plain(value: Any) -> str:
    return html.unescape(_BREAKS.sub(" ", text(value) or "")).strip()


def _joined(parts: Iterable[str | None], mark: str, most: int) -> str | None:
    return mark.join(filter(None, parts))[:most] or None


ITEM_LAYOUTS: Final = (
    Layout(
        ("parent_asin", "title"),
        lambda: metadata,
        ids=("parent_asin",),
        texts={"title": _plain, "categories": _categories, "description": _plain_list},
        optional={"price": price, "details": _brand, "brand": text, "store": text},
    ),
)
INTERACTION_LAYOUTS: Final = tuple(
    Layout(
        ("user_id", product, "rating", "timestamp"),
        lambda: review,
        ids=("user_id", "parent_asin", "asin"),
        times={"timestamp": wire_time},
        numbers=("rating",),
        texts={"title": _plain, "text": _plain},
    )
    for product in ("parent_asin", "asin")
)

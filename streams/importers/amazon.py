"""Format `amazon-2023`: reviews and metadata of Amazon Reviews 2023 (McAuley Lab). Pure.

Reviews: rating, title, text, asin, parent_asin, user_id, timestamp (ms). The rating-only CSV files
of the same collection fit as well. Metadata: parent_asin, title, store, categories, description
(a list of paragraphs), price. Items are named by parent_asin, as the collection's authors advise.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any, Final

from models.identity import digest
from models.schemas import MAX_DESCRIPTION_CHARS, MAX_REVIEW_CHARS, Interaction, Item
from streams.importers.cells import Layout
from streams.importers.rows import Adapted
from streams.importers.values import build, missing, price, text, wire_time

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
        title=_plain(values["title"]),
        brand=_brand(values),
        categories=tuple(filter(None, map(_plain, _listed(values.get("categories"))))),
        description=_joined(_listed(values.get("description")), " ", MAX_DESCRIPTION_CHARS),
        price=values.get("price"),
    )


def _brand(values: Mapping[str, Any]) -> str | None:
    details = values.get("details")
    named = details.get("Brand") if isinstance(details, dict) else None
    return text(named) or text(values.get("brand")) or text(values.get("store"))


def _listed(value: Any) -> tuple[Any, ...]:
    if isinstance(value, list | tuple):
        return tuple(value)
    return () if value is None else (value,)


def _plain(value: Any) -> str:
    return html.unescape(_BREAKS.sub(" ", text(value) or "")).strip()


def _joined(parts: tuple[Any, ...], mark: str, most: int) -> str | None:
    said = [plain for part in parts if part is not None and (plain := _plain(part))]
    return mark.join(said)[:most] or None


ITEM_LAYOUTS: Final = (
    Layout(
        ("parent_asin", "title"), lambda: metadata, ids=("parent_asin",), prices={"price": price}
    ),
)
INTERACTION_LAYOUTS: Final = tuple(
    Layout(
        ("user_id", product, "rating", "timestamp"),
        lambda: review,
        ids=("user_id", "parent_asin", "asin"),
        times={"timestamp": wire_time},
        numbers=("rating",),
    )
    for product in ("parent_asin", "asin")
)

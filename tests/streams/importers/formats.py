"""A good row of every layout of every format, and rows through an adapter.

Whoever adds a format adds its rows to ROWS; tests/streams/importers/test_every_format.py then asks
of it what holds for all.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from models.schemas import Interaction, Item
from streams.importers.cells import CellOptions, Layout
from streams.importers.dates import DateOrder
from streams.importers.layouts import layout_of
from streams.importers.rows import Adapted, Kind, SourceTable, Unusable

ITEMS, INTERACTIONS = Kind.ITEMS, Kind.INTERACTIONS
READING = CellOptions(dates=DateOrder.MONTH_FIRST)
NOON = datetime(2020, 1, 2, 12, tzinfo=UTC)

EVENT = {"user_id": "u", "item_id": "i", "type": "view", "timestamp": "2020-01-02T03:04:05Z"}
REVIEW = {
    "rating": 4.0, "title": "Nice", "text": "Smells good.<br />Lasts &amp; lasts", "images": [],
    "asin": "B00YQ6X8EO", "parent_asin": "B00PARENT1", "user_id": "AGKHLEW", "helpful_vote": 0,
    "timestamp": 1588687728923, "verified_purchase": True,
}  # fmt: skip
PRODUCT = {
    "main_category": "All Beauty", "title": "Howard LC0008 Conditioner", "average_rating": 4.8,
    "features": [], "description": ["Keeps leather", "soft."], "price": "$1,014.99",
    "store": "Howard Products", "categories": ["Beauty", "Care"], "parent_asin": "B01CUPMQZE",
    "details": {"UPC": "617390882781"},
}  # fmt: skip
RATING = {"userId": "1", "movieId": "296", "rating": "4.5", "timestamp": "1147880044"}
MOVIE = {"movieId": 1, "title": "Toy Story (1995)", "genres": "Adventure"}
SECOND_SPELLING = {
    "Invoice": "489434", "StockCode": "85048", "Description": " GLASS BALL ", "Quantity": "12",
    "InvoiceDate": "2009-12-01 07:45:00", "Price": "6.95", "Customer ID": "13085.0",
    "Country": "United Kingdom",
}  # fmt: skip
FIRST_SPELLING = {
    "InvoiceNo": "489434", "StockCode": "85048", "Description": "GLASS BALL", "Quantity": "12",
    "InvoiceDate": "12/1/2009 7:45", "UnitPrice": "6.95", "CustomerID": "13085",
    "Country": "United Kingdom",
}  # fmt: skip
PREPARED = {
    "user_id": "13085", "item_id": "85048", "timestamp": 1259653500, "event_type": "purchase",
    "quantity": 12, "price": 6.95, "basket_id": "489434",
}  # fmt: skip


class Good(NamedTuple):
    """A row that is read, as it stands in a file of its format."""

    format: str
    kind: Kind
    row: dict[str, Any]

    @property
    def layout(self) -> Layout:
        """The layout in which it is read."""
        return layout_of(_table(self.row), self.kind, self.format)

    def __str__(self) -> str:
        return f"{self.format}-{self.kind}-{next(iter(self.row))}"


ROWS = [
    Good("generic", INTERACTIONS, EVENT),
    Good("generic", ITEMS, {"item_id": "i", "title": "t"}),
    Good("amazon-2023", INTERACTIONS, REVIEW),
    Good("amazon-2023", INTERACTIONS, {k: v for k, v in REVIEW.items() if k != "parent_asin"}),
    Good("amazon-2023", ITEMS, PRODUCT),
    Good("movielens", INTERACTIONS, RATING),
    Good("movielens", ITEMS, MOVIE),
    Good("online-retail", INTERACTIONS, SECOND_SPELLING),
    Good("online-retail", INTERACTIONS, FIRST_SPELLING),
    Good("online-retail", INTERACTIONS, PREPARED),
    Good("online-retail", ITEMS, SECOND_SPELLING),
    Good("online-retail", ITEMS, FIRST_SPELLING),
    Good("online-retail", ITEMS, {"item_id": "10002", "title": "INFLATABLE GLOBE"}),
]


def adapted(kind: Kind, format_name: str, *rows: dict[str, Any]) -> list[Adapted]:
    """All rows through one adapter, as those of one file."""
    adapt = layout_of(_table(rows[0]), kind, format_name).start(READING)
    return [adapt(row) for row in rows]


def _table(row: dict[str, Any]) -> SourceTable:
    return SourceTable(Path("f.csv"), tuple(row), iter(()), lambda: 0.0)


def interaction(format_name: str, row: dict[str, Any]) -> Interaction:
    (message,) = adapted(INTERACTIONS, format_name, row)
    assert isinstance(message, Interaction), message
    return message


def item(format_name: str, row: dict[str, Any]) -> Item:
    (message,) = adapted(ITEMS, format_name, row)
    assert isinstance(message, Item), message
    return message


def refusal(kind: Kind, format_name: str, row: dict[str, Any]) -> Unusable:
    (message,) = adapted(kind, format_name, row)
    assert isinstance(message, Unusable), message
    return message

"""Format `online-retail`: the invoice lines of UCI's Online Retail and Online Retail II. Pure.

Three layouts: the two yearly spellings of the raw columns, and a prepared table (user_id, item_id,
timestamp in seconds, event_type, quantity, price, basket_id). An invoice number that begins with
C is a cancellation. Times are the shop's local clock, taken as UTC. Rows without a customer and
stock codes that are not products (postage, fees, samples) are left out, each counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final

from models.identity import digest
from models.schemas import Interaction, Item, to_epoch_ms
from streams.importers.cells import Layout
from streams.importers.rows import Adapted, RowAdapter, Unusable
from streams.importers.values import build, missing, moment_to_ms, number, seconds_to_ms, text

_PRODUCT: Final = re.compile(r"\d{5}[A-Za-z]*")
_SHOP_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d)(:\d\d(?:\.\d+)?)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII
)
_LINE: Final = ("invoice", "stock_code", "description", "quantity", "time", "price", "customer")
_RAW_SPELLINGS: Final = (
    ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID"),
    ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID"),
)
_PREPARED: Final = ("user_id", "item_id", "timestamp", "event_type", "basket_id")


class InvoiceLines:
    """Counts how often the current invoice has named a product before: 0 for the first line.

    The count goes into the event id, so that two like lines of an invoice are two events, and the
    same line in another file of the same data is the same event. An invoice's lines stand together.
    """

    def __init__(self) -> None:
        self._invoice = ""
        self._seen: Counter[str] = Counter()

    def repeat(self, invoice: str, stock_code: str) -> int:
        """Call once per line, in file order."""
        if invoice != self._invoice:
            self._invoice, self._seen = invoice, Counter()
        self._seen[stock_code] += 1
        return self._seen[stock_code] - 1


def raw_interactions(spelling: tuple[str, ...]) -> RowAdapter:
    """Adapter of raw invoice lines to interactions."""
    lines = InvoiceLines()
    return lambda values: invoice_line(_named(values, spelling), lines)


def raw_items(spelling: tuple[str, ...]) -> RowAdapter:
    """Adapter of raw invoice lines to items: a product's first description of a sale."""
    known: set[str] = set()

    def adapt(values: Mapping[str, Any]) -> Adapted:
        line = _named(values, spelling)
        refused = _not_of_a_customer(line) or missing(line, "description")
        if refused:
            return refused
        if line["stock_code"] in known:
            return Unusable("item seen in an earlier row", line["stock_code"])
        built = build(Item, item_id=line["stock_code"], title=line["description"])
        if isinstance(built, Item):
            known.add(line["stock_code"])
        return built

    return adapt


def prepared_interactions() -> RowAdapter:
    """Adapter of the prepared table to interactions."""
    lines = InvoiceLines()
    return lambda values: prepared_line(values, lines)


def prepared_line(values: Mapping[str, Any], lines: InvoiceLines) -> Adapted:
    """One row of the prepared table."""
    absent = missing(values, "user_id", "item_id", "timestamp", "event_type", "basket_id")
    if absent:
        return absent
    return _event(
        lines,
        invoice=values["basket_id"],
        stock_code=values["item_id"],
        customer=values["user_id"],
        type_=values["event_type"],
        timestamp=values["timestamp"],
        quantity=values.get("quantity"),
        price=values.get("price"),
    )


def prepared_item(values: Mapping[str, Any]) -> Adapted:
    """One row of the prepared catalogue."""
    absent = missing(values, "item_id", "title")
    if absent:
        return absent
    return build(Item, item_id=values["item_id"], title=values["title"])


def invoice_line(line: Mapping[str, Any], lines: InvoiceLines) -> Adapted:
    """One raw line, its cells named as in _LINE."""
    refused = _not_of_a_customer(line) or missing(line, "invoice", "time", "quantity")
    if refused:
        return refused
    cancelled, quantity = line["invoice"].startswith(("C", "c")), line["quantity"]
    if not cancelled and quantity <= 0:
        return Unusable("no units sold", f"quantity {quantity:g} on invoice {line['invoice']}")
    return _event(
        lines,
        invoice=line["invoice"],
        stock_code=line["stock_code"],
        customer=line["customer"],
        type_="cancel" if cancelled else "purchase",
        timestamp=line["time"],
        quantity=quantity,
        price=line["price"],
    )


def _named(values: Mapping[str, Any], spelling: tuple[str, ...]) -> dict[str, Any]:
    line = {name: values.get(column) for name, column in zip(_LINE, spelling, strict=True)}
    line["stock_code"] = (line["stock_code"] or "").strip().upper()
    line["customer"] = (line["customer"] or "").strip()
    return line


def _not_of_a_customer(line: Mapping[str, Any]) -> Unusable | None:
    if not line["customer"]:
        return Unusable("no customer", f"invoice {line['invoice']}")
    if not _PRODUCT.fullmatch(line["stock_code"]):
        return Unusable("not a product", f"stock code {line['stock_code']!r:.40}")
    return None


def _event(
    lines: InvoiceLines,
    *,
    invoice: str,
    stock_code: str,
    customer: str,
    type_: str,
    timestamp: int,
    quantity: float | None,
    price: float | None,
) -> Adapted:
    repeat = lines.repeat(invoice, stock_code)
    return build(
        Interaction,
        event_id=digest("online-retail", invoice, stock_code, customer, timestamp, repeat),
        user_id=customer,
        item_id=stock_code,
        type=type_,
        timestamp=timestamp,
        quantity=None if quantity is None else abs(quantity),
        price=price,
        session_id=invoice,
    )


def shop_time(value: Any) -> int:
    """The shop's clock → epoch milliseconds, as if it were UTC. Raises ValueError.

    Known spellings: datetimes, RFC 3339 that may lack seconds and offset; and 12/1/2010 8:26,
    once `dates` has put it in order.
    """
    if isinstance(value, datetime):
        return moment_to_ms(value)
    if not isinstance(value, str):
        raise ValueError(f"no time of day in {value!s:.40}")
    found = _SHOP_TIME.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r:.60} is not a time that Online Retail uses")
    minute, seconds, offset = found.groups()
    return to_epoch_ms(f"{minute}{seconds or ':00'}{offset or 'Z'}")


def _raw_line(names: tuple[str, ...]) -> Layout:
    invoice, stock_code, _, quantity, time, price, customer = names
    return Layout(
        (invoice, stock_code, quantity, time, customer),
        partial(raw_interactions, names),
        ids=(invoice, stock_code, customer),
        times={time: shop_time},
        numbers=(quantity,),
        optional={price: number},
        local_dates=time,
        decimal_ids=(customer,),
    )


def _raw_product(names: tuple[str, ...]) -> Layout:
    invoice, stock_code, description, *_, customer = names
    return Layout(
        (invoice, stock_code, description, customer),
        partial(raw_items, names),
        ids=(invoice, stock_code, customer),
        texts={description: text},
        decimal_ids=(customer,),
    )


ITEM_LAYOUTS: Final = (
    *map(_raw_product, _RAW_SPELLINGS),
    Layout(("item_id", "title"), lambda: prepared_item, ids=("item_id",), texts={"title": text}),
)
INTERACTION_LAYOUTS: Final = (
    *map(_raw_line, _RAW_SPELLINGS),
    Layout(
        _PREPARED,
        prepared_interactions,
        ids=("user_id", "item_id", "basket_id"),
        times={"timestamp": seconds_to_ms},
        numbers=("quantity",),
        optional={"price": number},
    ),
)

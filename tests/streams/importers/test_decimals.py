"""A file shows whether its points are decimal points, or its numbers are left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.schemas import Interaction, Item
from streams.importers.rows import Kind
from streams.importers.survey import survey
from streams.importers.values import has_decimal_points, is_undecided


@pytest.mark.parametrize("written", ["1.299", "999.999", "-1.299", " 10.000 "])
def test_three_digits_after_a_point_may_be_thousands(written: str) -> None:
    assert is_undecided(written)


@pytest.mark.parametrize("written", ["1.25", "0.125", "1299.500", "1.2990", ".500", "12", 1.299])
def test_other_numbers_say_what_they_are(written: str | float) -> None:
    assert not is_undecided(written)


@pytest.mark.parametrize(
    ("others", "separator", "decimal"),
    [
        ([], ",", True), ([], "\t", True), ([], "", True), ([], ";", False),
        (["9.99"], ";", True), (["0.125"], ";", True), (["$9.99"], ";", True),
        (["1,299.00"], ";", True), (["1,299,000"], ";", True),
        (["9,99"], ",", False), (["9,99"], "", False), (["0,125"], ",", False),
        (["1.299,00"], ",", False), (["9,99 €"], ",", False), (["1.299.000"], ",", False),
        (["1 299,00"], ",", False), (["9,99", "9.99"], ",", False),
        (["9.99", "9,99"], ",", False),
        (["1,299"], ",", True), (["1,299"], ";", False), ([9.5, None, "n/a"], ";", False),
    ],
)  # fmt: skip
def test_the_other_numbers_of_a_file_decide(
    others: list[str], separator: str, decimal: bool
) -> None:
    for cells in (["1.299", *others], [*others, "1.299"]):
        assert has_decimal_points(cells, separator) is decimal


def prices(folder: Path, lines: list[str], name: str = "a.csv") -> tuple[list[float | None], int]:
    path = folder / name
    path.write_text("\n".join(lines))
    opened = survey(path, Kind.ITEMS, "generic")
    found = [Item.model_validate_json(message.value).price for message in opened.messages]
    left_out = opened.report.left_out.get("price")
    return found, left_out.count if left_out else 0


def test_a_point_that_may_be_of_thousands_costs_the_price(tmp_path: Path) -> None:
    rows = ["item_id;title;price", "A;t;1.299", "B;t;12,99", "C;t;1.299,99"]
    assert prices(tmp_path, rows) == ([None, None, None], 3)
    assert prices(tmp_path, ["item_id,title,price", "A,t,1.299", 'B,t,"12,99"'])[1] == 2
    assert prices(tmp_path, ["item_id;title;price", "A;t;1.299", "B;t;7"]) == ([None, 7.0], 1)


def test_a_point_that_is_of_decimals_is_read(tmp_path: Path) -> None:
    rows = ["item_id;title;price", "A;t;1.299", "B;t;12.99"]
    assert prices(tmp_path, rows) == ([1.299, 12.99], 0)
    assert prices(tmp_path, ["item_id,title,price", "A,t,1.299", "B,t,2.500"])[0] == [1.299, 2.5]


def test_json_numbers_have_points_whatever_the_texts_show(tmp_path: Path) -> None:
    written: list[float | str] = ["12,99", 1.299, "1.299", "1.25"]
    rows = [json.dumps({"item_id": "i", "title": "t", "price": price}) for price in written]

    assert prices(tmp_path, rows, "a.jsonl") == ([None, 1.299, None, 1.25], 2)


@pytest.mark.parametrize("name", ["generic", "online-retail"])
def test_a_quantity_that_may_be_thousands_makes_a_row_unusable(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.csv"
    text = {
        "generic": "user_id;item_id;type;timestamp;quantity\n"
        "u;i;purchase;2020-01-01T00:00:00Z;{}\n",
        "online-retail": "Invoice;StockCode;Description;Quantity;InvoiceDate;Price;Customer ID\n"
        "5;85123A;W;{};2010-12-01 08:26;2,55;13085\n",
    }[name]
    found: list[float | None] = []
    for written in ("1.000", "1.5"):
        path.write_text(text.format(written))
        opened = survey(path, Kind.INTERACTIONS, name)
        found.extend(
            Interaction.model_validate_json(message.value).quantity for message in opened.messages
        )
        if written == "1.000":
            assert "may be 1000 here" in opened.report.rejected["invalid value"].first[0][1]

    assert found == [1.5]

"""Rows of foreign files become the messages that they mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from models.errors import ImportFailed
from models.schemas import Interaction, Item, to_epoch_ms
from streams.importers.cells import Reading
from streams.importers.dates import DateOrder
from streams.importers.layouts import layout_of
from streams.importers.rows import Adapted, Kind, Table, Unusable
from streams.importers.survey import survey

ITEMS, INTERACTIONS = Kind.ITEMS, Kind.INTERACTIONS


def adapted(kind: Kind, format_name: str, *rows: dict[str, Any]) -> list[Adapted]:
    """All rows through one adapter, as those of one file."""
    table = Table(Path("f.csv"), tuple(rows[0]), iter(()), lambda: 0.0)
    adapt = layout_of(table, kind, format_name).start(Reading(dates=DateOrder.MONTH_FIRST))
    return [adapt(row) for row in rows]


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


# --- online-retail ---------------------------------------------------------------------------

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


def test_all_spellings_of_an_invoice_line_are_one_event() -> None:
    second, first, prepared = (
        interaction("online-retail", row) for row in (SECOND_SPELLING, FIRST_SPELLING, PREPARED)
    )

    assert second == first == prepared
    assert second.user_id == "13085"
    assert second.item_id == "85048"
    assert second.type == "purchase"
    assert second.timestamp == to_epoch_ms("2009-12-01T07:45:00Z")
    assert (second.quantity, second.price, second.session_id) == (12, 6.95, "489434")


def test_an_invoice_that_begins_with_c_is_a_cancellation() -> None:
    row = SECOND_SPELLING | {"Invoice": "C489449", "Quantity": "-4"}
    event = interaction("online-retail", row)

    assert (event.type, event.quantity) == ("cancel", 4)


def test_like_lines_of_one_invoice_are_different_events() -> None:
    other = SECOND_SPELLING | {"Invoice": "500000"}
    messages = adapted(
        INTERACTIONS, "online-retail", SECOND_SPELLING, SECOND_SPELLING, other, other
    )

    assert len({m.event_id for m in messages if isinstance(m, Interaction)}) == 4


def test_reading_the_same_lines_again_gives_the_same_ids() -> None:
    rows = (SECOND_SPELLING, SECOND_SPELLING)

    assert adapted(INTERACTIONS, "online-retail", *rows) == adapted(
        INTERACTIONS, "online-retail", *rows
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Customer ID": ""}, "no customer"),
        ({"Customer ID": float("nan")}, "no customer"),
        ({"StockCode": "POST"}, "not a product"),
        ({"StockCode": "DOT"}, "not a product"),
        ({"StockCode": "gift_0001_20"}, "not a product"),
        ({"Quantity": "-3"}, "no units sold"),
        ({"Quantity": "many"}, "invalid value"),
        ({"Quantity": "inf"}, "invalid value"),
        ({"InvoiceDate": "31/12/2010 8:26"}, "invalid value"),
        ({"InvoiceDate": "yesterday"}, "invalid value"),
        ({"InvoiceDate": ""}, "missing value"),
        ({"Invoice": ""}, "missing value"),
    ],
)
def test_lines_that_are_no_purchase_are_left_out_by_reason(
    change: dict[str, Any], reason: str
) -> None:
    assert refusal(INTERACTIONS, "online-retail", SECOND_SPELLING | change).reason == reason


def test_products_come_out_of_invoice_lines_once() -> None:
    again = SECOND_SPELLING | {"Description": "GLASS BALL, LARGE"}
    first, second = adapted(ITEMS, "online-retail", SECOND_SPELLING, again)

    assert first == Item(item_id="85048", title="GLASS BALL")
    assert isinstance(second, Unusable)
    assert second.reason == "item seen in an earlier row"


def test_a_prepared_catalogue_is_read() -> None:
    row = {"item_id": "10002", "title": "INFLATABLE GLOBE", "brand": None}

    assert item("online-retail", row) == Item(item_id="10002", title="INFLATABLE GLOBE")


# --- amazon-2023 -----------------------------------------------------------------------------

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


def test_an_amazon_review_is_a_rating_of_the_parent_product() -> None:
    event = interaction("amazon-2023", REVIEW)

    assert (event.user_id, event.item_id, event.type) == ("AGKHLEW", "B00PARENT1", "rating")
    assert event.rating == 4.0
    assert event.timestamp == 1588687728923
    assert event.review == "Nice. Smells good. Lasts & lasts"


def test_an_amazon_review_without_parent_names_the_product() -> None:
    assert interaction("amazon-2023", REVIEW | {"parent_asin": None}).item_id == "B00YQ6X8EO"


def test_amazon_rating_files_are_the_same_events() -> None:
    row = {"user_id": "AGK", "parent_asin": "B1", "rating": "5.0", "timestamp": "1588687728923"}

    event = interaction("amazon-2023", row)

    assert (event.rating, event.timestamp, event.review) == (5.0, 1588687728923, None)


def test_an_overlong_review_is_cut_not_refused() -> None:
    assert len(interaction("amazon-2023", REVIEW | {"text": "x" * 99_999}).review or "") == 20_000


def test_amazon_metadata_is_an_item() -> None:
    assert item("amazon-2023", PRODUCT) == Item(
        item_id="B01CUPMQZE",
        title="Howard LC0008 Conditioner",
        brand="Howard Products",
        categories=("Beauty", "Care"),
        description="Keeps leather soft.",
        price=1014.99,
    )


@pytest.mark.parametrize(
    ("written", "price"), [("from 14.99", 14.99), ("None", None), (None, None), (5, 5.0)]
)
def test_amazon_prices_are_read_as_written(written: Any, price: float | None) -> None:
    assert item("amazon-2023", PRODUCT | {"price": written}).price == price


def test_amazon_details_name_the_brand_before_the_store() -> None:
    assert item("amazon-2023", PRODUCT | {"details": {"Brand": "Howard"}}).brand == "Howard"


def test_amazon_rows_without_a_need_are_left_out() -> None:
    assert refusal(ITEMS, "amazon-2023", PRODUCT | {"title": " "}).reason == "missing value"
    assert refusal(INTERACTIONS, "amazon-2023", REVIEW | {"rating": "?"}).reason == "invalid value"


@pytest.mark.parametrize("stars", ["99", "5.5", "-1"])
def test_stars_beyond_five_are_refused_in_every_format(stars):
    movie = {"userId": "1", "movieId": "296", "rating": stars, "timestamp": "1147880044"}
    plain = {"event_id": "e", "user_id": "u", "item_id": "i", "type": "rating"}
    for name, row in {
        "amazon-2023": REVIEW | {"rating": stars},
        "movielens": movie,
        "generic": plain | {"timestamp": "1588687728923", "rating": stars},
    }.items():
        assert refusal(INTERACTIONS, name, row).reason == "invalid value"


def test_a_rating_without_stars_is_refused():
    row = {"event_id": "e", "user_id": "u", "item_id": "i", "type": "rating"}
    assert "rating" in refusal(INTERACTIONS, "generic", row | {"timestamp": "1588687728923"}).detail
    assert refusal(INTERACTIONS, "amazon-2023", REVIEW | {"timestamp": 158868772}).detail.endswith(
        "(epoch times are in milliseconds)"
    )


# --- movielens -------------------------------------------------------------------------------


def test_a_movielens_rating_has_seconds() -> None:
    row = {"userId": "1", "movieId": "296", "rating": "4.5", "timestamp": "1147880044"}

    event = interaction("movielens", row)

    assert (event.user_id, event.item_id, event.rating) == ("1", "296", 4.5)
    assert event.timestamp == to_epoch_ms("2006-05-17T15:34:04Z")


def test_a_movie_has_its_genres_as_categories() -> None:
    row = {"movieId": 1, "title": "Toy Story (1995)", "genres": "Adventure|Animation"}

    assert item("movielens", row).categories == ("Adventure", "Animation")
    assert item("movielens", row | {"genres": "(no genres listed)"}).categories == ()


def test_movielens_rows_with_other_values_are_left_out() -> None:
    row = {"userId": "1", "movieId": "296", "rating": "4.5", "timestamp": "noon"}

    assert refusal(INTERACTIONS, "movielens", row).reason == "invalid value"
    assert refusal(INTERACTIONS, "movielens", row | {"timestamp": "inf"}).reason == "invalid value"
    assert refusal(INTERACTIONS, "movielens", row | {"userId": ""}).detail == "no userId"


def test_movielens_dat_files_have_no_header_and_latin_1_text(tmp_path: Path) -> None:
    movies, ratings = tmp_path / "movies.dat", tmp_path / "ratings.dat"
    movies.write_bytes("73::Misérables, Les (1995)::Drama|Musical\n".encode("latin-1"))
    ratings.write_text("1::73::4::978300760\n")

    (title,) = (m.value for m in survey(movies, ITEMS, "movielens").messages)
    (event,) = survey(ratings, INTERACTIONS, "movielens").messages

    assert Item.model_validate_json(title).title == "Misérables, Les (1995)"
    assert event.event_time == 978300760000


# --- generic ---------------------------------------------------------------------------------

EVENT = {"user_id": "u", "item_id": "i", "type": "view", "timestamp": "2020-01-02T03:04:05Z"}


def test_generic_ids_may_be_numbers_and_event_ids_left_out() -> None:
    numbered = interaction("generic", EVENT | {"user_id": 7, "item_id": 8.0})

    assert (numbered.user_id, numbered.item_id) == ("7", "8")
    assert interaction("generic", EVENT).event_id == interaction("generic", EVENT).event_id
    assert numbered.event_id != interaction("generic", EVENT).event_id
    assert interaction("generic", EVENT | {"event_id": "e"}).event_id == "e"


@pytest.mark.parametrize(
    "written", ["Beauty > Nails", "Beauty|Nails", '["Beauty", "Nails"]', ["Beauty", "Nails"]]
)
def test_generic_categories_may_be_a_list_or_a_path(written: Any) -> None:
    row = {"item_id": "i", "title": "t", "categories": written}

    assert item("generic", row).categories == ("Beauty", "Nails")


@pytest.mark.parametrize(
    "change",
    [
        {"type": "stared-at"},
        {"timestamp": "1577934245"},  # seconds
        {"timestamp": "2020-01-02 03:04:05"},  # no offset
        {"rating": "nan?"},
        {"rating": "inf"},
        {"user_id": "u\x00v"},
        {"user_id": "u" * 300},
        {"review": "x" * 20_001},
        {"position": "-1"},
    ],
)
def test_generic_rows_with_absurd_values_are_left_out(change: dict[str, Any]) -> None:
    refused = refusal(INTERACTIONS, "generic", EVENT | change)

    assert refused.reason == "invalid value"
    assert next(iter(change)) in refused.detail


def test_generic_categories_that_are_no_list_are_left_out() -> None:
    row = {"item_id": "i", "title": "t", "categories": '["open'}

    assert refusal(ITEMS, "generic", row).reason == "invalid value"


# --- all -------------------------------------------------------------------------------------


def test_wrong_columns_name_file_line_and_the_format_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("userId,movieId,rating,timestamp\n1,2,3,4\n")

    with pytest.raises(ImportFailed) as caught:
        survey(path, INTERACTIONS, "generic")

    message = str(caught.value)
    assert f"{path}, line 1: no column user_id, item_id, type" in message
    assert "import interactions --format movielens" in message


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="generic, amazon-2023, movielens, online-retail"):
        survey(tmp_path, ITEMS, "spotify")


def messy() -> Iterator[str]:
    yield "user_id,item_id,type,timestamp"
    yield "u1,i1,view,2020-01-02T00:00:00Z"
    yield "u1,i1,stare,2020-01-02T00:00:00Z"
    yield "u1,i1"
    yield ",i1,view,2020-01-02T00:00:00Z"
    yield "u2,i2,view,2019-12-31T23:59:59Z"  # a day and a second earlier
    yield "u2,i2,view,2020-01-03T00:00:00Z"


def test_the_report_counts_every_row_and_shows_the_first_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(messy()))

    opened = survey(path, INTERACTIONS, "generic")
    messages = list(opened.messages)
    report = opened.report.to_dict()

    assert [m.row for m in messages] == [1, 5, 6]
    assert [m.key for m in messages] == [b"u1", b"u2", b"u2"]
    assert (report["rows"], report["accepted"]["count"]) == (6, 3)
    assert report["accepted"]["first"][0] == {"line": 2, "detail": "u1 view i1"}
    assert {reason: group["first"][0]["line"] for reason, group in report["rejected"].items()} == {
        "invalid value": 3,
        "unreadable row": 4,
        "missing value": 5,
    }
    assert report["out_of_order"] == {
        "count": 1,
        "first": [{"line": 6, "detail": "2019-12-31T23:59:59.000Z after 2020-01-02T00:00:00.000Z"}],
    }
    assert report["first_time"] == "2019-12-31T23:59:59.000Z"
    assert report["last_time"] == "2020-01-03T00:00:00.000Z"


def test_a_message_too_large_for_the_topic_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(orjson.dumps({"item_id": "i", "title": "t", "description": "é" * 600_000}))

    opened = survey(path, ITEMS, "generic")

    assert list(opened.messages) == []
    assert set(opened.report.rejected) == {"too large"}


def test_a_limit_reads_no_more_rows_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(messy()))

    opened = survey(path, INTERACTIONS, "generic", limit=2)

    assert len(list(opened.messages)) == 1
    assert opened.report.rows == 2

"""Rows of foreign files become the messages that they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.parquet
import pytest

from models.errors import ImportFailed
from models.schemas import Interaction, Item, to_epoch_ms, to_rfc3339
from streams.importers.cells import CellOptions
from streams.importers.dates import DateOrder
from streams.importers.layouts import FORMATS
from streams.importers.report import ImportReport
from streams.importers.rows import Kind, Unusable
from streams.importers.survey import survey
from tests.streams.importers.formats import (
    EVENT,
    FIRST_SPELLING,
    INTERACTIONS,
    ITEMS,
    PREPARED,
    PRODUCT,
    READING,
    REVIEW,
    ROWS,
    SECOND_SPELLING,
    adapted,
    interaction,
    item,
    refusal,
)

# --- online-retail ---------------------------------------------------------------------------


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


def test_an_amazon_review_is_a_rating_of_the_parent_product() -> None:
    event = interaction("amazon-2023", REVIEW)

    assert (event.user_id, event.item_id, event.type) == ("AGKHLEW", "B00PARENT1", "rating")
    assert event.rating == 4.0
    assert event.timestamp == 1588687728923
    assert event.review == "Nice. Smells good. Lasts & lasts"


@pytest.mark.parametrize("written", ['["Beauty", "Nails"]', ["Beauty", "Nails"]])
def test_amazon_categories_in_a_table_are_json(written: Any) -> None:
    assert item("amazon-2023", PRODUCT | {"categories": written}).categories == ("Beauty", "Nails")


def test_amazon_categories_as_python_prints_them_are_not_one_category() -> None:
    assert refusal(
        ITEMS, "amazon-2023", PRODUCT | {"categories": "['Beauty', 'Nails']"}
    ).reason == ("invalid value")


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


@pytest.mark.parametrize(
    ("written", "price"),
    [
        ("$9.99", 9.99), ("$5", 5.0), ("9.99 EUR", 9.99), ("US$ 1,299.00", 1299.0),
        ("€\u202f12.50", 12.5), ("£0.125", 0.125), ("1299.5", 1299.5), (Decimal("9.99"), 9.99),
    ],
)  # fmt: skip
def test_prices_that_say_one_thing_are_read(written: Any, price: float) -> None:
    assert item("amazon-2023", PRODUCT | {"price": written}).price == price


@pytest.mark.parametrize(
    "written",
    [
        "1.299.00", "1.299,99 €", "12,99 €", "1,299", "1.299", "$1,299", "$5-$9", "5 - 9", "-5",
        "$-5", "($5)", "1 299.00", "1'299.00", "１２", "1e3", "inf", "1,29,999.00", "9.99.",
        "5 pcs", "was $9 now $5", "9.99/month", "$",
        "99999999999999", 10**400, float("inf"), True, b"5", -5, -0.01, Decimal("-5"),
        [5], {"amount": 5},
    ],
)  # fmt: skip
def test_prices_that_say_two_things_or_none_are_left_out_and_said(written: Any) -> None:
    left_out: list[str] = []
    (layout,) = FORMATS["amazon-2023"].layouts[ITEMS]
    adapt = layout.start(leave_out=lambda column, why: left_out.append(column))

    message = adapt(PRODUCT | {"price": written})

    assert isinstance(message, Item)
    assert message.price is None
    assert left_out == ["price"]


def test_a_price_in_a_table_is_a_number_or_left_out() -> None:
    assert interaction("online-retail", SECOND_SPELLING | {"Price": "1.299"}).price == 1.299
    assert interaction("online-retail", SECOND_SPELLING | {"Price": "2,55"}).price is None
    assert interaction("generic", EVENT | {"price": "$5"}).price is None
    assert interaction("generic", EVENT | {"price": "n/a"}).price is None


def test_amazon_details_name_the_brand_before_the_store() -> None:
    assert item("amazon-2023", PRODUCT | {"details": {"Brand": "Howard"}}).brand == "Howard"


@pytest.mark.parametrize(
    ("details", "brand", "left_out"),
    [
        ('{"Brand": "q"}', "q", []), ({"Brand": ["q"]}, "q", []),
        ({"Brand": 10**23 + 1}, str(10**23 + 1), []),
        ({"Brand": "nan"}, "s", []), ({}, "s", []), ("", "s", []), ("null", "s", []),
        ({"Brand": ["q", "r"]}, "s", ["details"]), ({"Brand": {"a": 1}}, "s", ["details"]),
        ("{'Brand': 'q'}", "s", ["details"]), ([1], "s", ["details"]),
    ],
)  # fmt: skip
def test_details_that_name_no_brand_for_certain_cost_the_item_nothing_else(
    details: Any, brand: str, left_out: list[str]
) -> None:
    said: list[str] = []
    (layout,) = FORMATS["amazon-2023"].layouts[ITEMS]
    adapt = layout.start(leave_out=lambda column, why: said.append(column))

    found = adapt({"parent_asin": "p", "title": "t", "store": "s", "details": details})

    assert isinstance(found, Item), found
    assert (found.brand, said) == (brand, left_out)


def test_long_numbers_in_lists_keep_their_digits(tmp_path: Path) -> None:
    number = 123456789012345678901234
    path = tmp_path / "a.jsonl"
    for row in ({"categories": [number]}, {"categories": f"[{number}]"}):
        path.write_bytes(json.dumps({"item_id": "i", "title": "t", **row}).encode())
        (message,) = survey(path, ITEMS, "generic").messages
        assert Item.model_validate_json(message.value).categories == (str(number),)

    path.write_text(json.dumps(PRODUCT | {"description": [number]}))
    (message,) = survey(path, ITEMS, "amazon-2023").messages
    assert Item.model_validate_json(message.value).description == str(number)


def test_amazon_rows_without_a_need_are_left_out() -> None:
    assert refusal(ITEMS, "amazon-2023", PRODUCT | {"title": " "}).reason == "missing value"
    assert refusal(INTERACTIONS, "amazon-2023", REVIEW | {"rating": "x"}).reason == "invalid value"


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


# --- ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("77", "77"), ("077", "077"), (77, "77"), (77.0, "77"), (Decimal("77.00"), "77"),
        (2**64 + 1, "18446744073709551617"), (Decimal(10**37 + 1), str(10**37 + 1)),
    ],
)  # fmt: skip
def test_ids_are_text_or_whole_numbers(written: Any, named: str) -> None:
    assert interaction("generic", EVENT | {"user_id": written}).user_id == named


@pytest.mark.parametrize(
    "written",
    [
        *("nan", "NaN", "None", "NULL", "n/a", "<NA>", "", " ", None),
        *("#N/A N/A", "#REF!", "#VALUE!", "-1.#IND", "1.#QNAN", "[object Object]"),
        *(".", "-", "--", "---", " - ", "?"),
    ],
)
def test_words_for_nobody_are_no_customer(written: Any) -> None:
    shop = refusal(INTERACTIONS, "online-retail", SECOND_SPELLING | {"Customer ID": written})
    plain = refusal(INTERACTIONS, "generic", EVENT | {"user_id": written})

    assert shop.reason == "no customer"
    assert (plain.reason, plain.detail) == ("missing value", "no user_id")


def test_words_for_nobody_are_no_event_id_either() -> None:
    first, second = (
        interaction("generic", EVENT | {"item_id": name, "event_id": "None"}) for name in "ab"
    )

    assert first.event_id != second.event_id


@pytest.mark.parametrize("word", ["nan", "None", " NULL ", "n/a", "<NA>", "undefined"])
def test_words_for_nothing_are_no_text(word: str) -> None:
    generic = {"item_id": "i", "title": "t"}
    plain = item(
        "generic",
        generic
        | {
            "brand": word,
            "description": word,
            "available": word,
            "categories": json.dumps(["a", word]),
        },
    )
    listed = item("generic", generic | {"categories": ["a", word]})
    product = item(
        "amazon-2023",
        {"parent_asin": "p", "title": "t", "store": word, "brand": word, "categories": [word, "a"]}
        | {"description": [word], "details": {"Brand": word}},
    )
    movie = item("movielens", {"movieId": 1, "title": "t", "genres": f"a|{word}"})

    assert plain == listed == Item(item_id="i", title="t", categories=("a",))
    assert product == Item(item_id="p", title="t", categories=("a",))
    assert movie.categories == ("a",)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("generic", {"item_id": "i"}),
        ("amazon-2023", {"parent_asin": "i"}),
        ("movielens", {"movieId": "i"}),
        ("online-retail", {"item_id": "i"}),
    ],
)
def test_an_item_named_by_a_word_for_nothing_has_no_title(name: str, row: dict[str, Any]) -> None:
    (reason, detail) = ("missing value", "no title")
    assert refusal(ITEMS, name, row | {"title": "None"}) == Unusable(reason, detail)
    assert item(name, row | {"title": "None of them"}).title == "None of them"


def test_a_product_described_by_a_word_for_nothing_is_named_by_a_later_line() -> None:
    rows = (SECOND_SPELLING | {"Description": name} for name in ("nan", "GLASS BALL"))
    first, second = adapted(ITEMS, "online-retail", *rows)

    assert isinstance(first, Unusable)
    assert second == Item(item_id="85048", title="GLASS BALL")


def test_a_word_for_nothing_costs_an_event_its_review_only() -> None:
    rating = EVENT | {"type": "rating", "rating": 4}

    assert interaction("generic", rating | {"review": "nan"}).review is None
    assert interaction("amazon-2023", REVIEW | {"title": "None", "text": "nan"}).review is None
    assert interaction("online-retail", SECOND_SPELLING | {"Description": "nan"})


@pytest.mark.parametrize("written", ["nan.0", "NaN.0", " None.0", "null.0"])
def test_nobody_is_nobody_with_a_decimal_too(written: str) -> None:
    row = SECOND_SPELLING | {"Customer ID": written}
    assert refusal(INTERACTIONS, "online-retail", row).reason == "no customer"
    assert refusal(ITEMS, "online-retail", row).reason == "no customer"


def test_the_words_for_nobody_are_a_setting() -> None:
    (layout,) = FORMATS["generic"].layouts[INTERACTIONS]
    adapt = layout.start(CellOptions(absent=frozenset({"guest"})))

    assert adapt(EVENT | {"user_id": "Guest"}) == Unusable("missing value", "no user_id")
    assert isinstance(adapt(EVENT | {"user_id": "None"}), Interaction)

    (layout,) = FORMATS["movielens"].layouts[ITEMS]
    film = {"movieId": 1, "title": "None", "genres": "nan|guest"}
    assert layout.start(CellOptions(absent=frozenset({"guest"})))(film) == Item(
        item_id="1", title="None", categories=("nan",)
    )


# --- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["20101201", "2010-W48-3", "2010-12-01x08:26", "2010-12-01"])
def test_a_shop_time_is_a_date_and_a_time_of_day(written: str) -> None:
    row = SECOND_SPELLING | {"InvoiceDate": written}
    assert "InvoiceDate" in refusal(INTERACTIONS, "online-retail", row).detail


@pytest.mark.parametrize(
    "written",
    [
        "2010-12-01 08:26",
        "2010-12-01T08:26:00.000",
        "2010-12-01T09:26:00+01:00",
        " 2010-12-01t08:26z",
    ],
)
def test_a_shop_time_may_lack_seconds_and_offset(written: str) -> None:
    event = interaction("online-retail", SECOND_SPELLING | {"InvoiceDate": written})
    assert event.timestamp == to_epoch_ms("2010-12-01T08:26:00Z")


def invoices(folder: Path, *dates: str) -> Path:
    path = folder / "invoices.csv"
    lines = (f"{n},85123A,HEART,6,{at},2.55,17850" for n, at in enumerate(dates))
    path.write_text("\n".join([",".join(list(SECOND_SPELLING)[:7]), *lines]))
    return path


def days(path: Path, dates: DateOrder | None = None) -> list[str]:
    opened = survey(path, INTERACTIONS, "online-retail", reading=CellOptions(dates=dates))
    return [to_rfc3339(message.event_time or 0)[:10] for message in opened.messages]


@pytest.mark.parametrize("mark", "/-.")
def test_one_date_of_a_file_decides_how_all_are_read(tmp_path: Path, mark: str) -> None:
    day_first = ["01/12/2010 08:26", "03/12/2010 11:00", "13/12/2010 09:00"]
    month_first = ["12/1/2010 8:26", "12/3/2010 11:00", "12/13/2010 9:00:00"]

    for dates in (day_first, month_first):
        path = invoices(tmp_path, *(date.replace("/", mark) for date in dates))
        assert days(path) == ["2010-12-01", "2010-12-03", "2010-12-13"]


def test_dates_that_can_be_read_in_two_ways_are_refused_with_both(tmp_path: Path) -> None:
    path = invoices(tmp_path, "2010-11-30 08:00", "01/12/2010 08:26", "02/12/2010 08:26")

    with pytest.raises(ImportFailed) as caught:
        days(path)

    for said in (f"{path}, line 3", "2010-12-01", "2010-01-12", "--dates day-first"):
        assert said in str(caught.value)
    assert days(path, DateOrder.DAY_FIRST) == ["2010-11-30", "2010-12-01", "2010-12-02"]
    assert days(path, DateOrder.MONTH_FIRST) == ["2010-11-30", "2010-01-12", "2010-02-12"]


def test_dates_that_contradict_each_other_are_refused_with_both_lines(tmp_path: Path) -> None:
    path = invoices(tmp_path, "13/12/2010 08:26", "01/12/2010 08:26", "12/31/2010 08:26")

    with pytest.raises(ImportFailed, match=r"line 2: 13/12/2010.*line 4.*--dates"):
        days(path)
    assert days(path, DateOrder.DAY_FIRST) == ["2010-12-13", "2010-12-01"]


def test_dates_need_no_order_where_it_makes_no_difference(tmp_path: Path) -> None:
    assert days(invoices(tmp_path, "05/05/2010 08:26", "13/13/2010 1:00")) == ["2010-05-05"]


@pytest.mark.parametrize("wrong", ["45/12/2010", "31/04/2010", "29/02/2010", "04/31/2010"])
def test_a_day_that_no_calendar_has_tells_nothing_of_the_others(tmp_path: Path, wrong: str) -> None:
    path = invoices(tmp_path, f"{wrong} 08:26", "01/12/2010 08:26")

    with pytest.raises(ImportFailed, match=r"line 3: 01/12/2010"):
        days(path)
    assert days(path, DateOrder.DAY_FIRST) == ["2010-12-01"]
    assert days(invoices(tmp_path, f"{wrong} 08:26", "13/12/2010 08:26")) == ["2010-12-13"]


def test_a_day_that_no_calendar_has_ends_no_import(tmp_path: Path) -> None:
    assert days(invoices(tmp_path, "00/01/2010 08:26", "2010-12-01 08:26")) == ["2010-12-01"]


def test_years_of_two_digits_are_not_guessed(tmp_path: Path) -> None:
    assert days(invoices(tmp_path, "13/12/10 08:26", "13/12/2010 08:26")) == ["2010-12-13"]


# --- all -------------------------------------------------------------------------------------


def test_wrong_columns_name_file_line_and_the_format_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("userId,movieId,rating,timestamp\n1,2,3,4\n")

    with pytest.raises(ImportFailed) as caught:
        survey(path, INTERACTIONS, "generic")

    message = str(caught.value)
    assert f"{path}, line 1: no column user_id, item_id, type" in message
    assert "import interactions --format movielens" in message


def test_columns_that_are_not_there_are_said_of_the_header_s_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("sep=|\nuser_id|item_id|type\nu|i|view\n")

    with pytest.raises(
        ImportFailed, match=r"line 2: no column timestamp; .*user_id, item_id, type"
    ):
        survey(path, INTERACTIONS, "generic")


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match=", ".join(FORMATS)):
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


def test_one_wrong_clock_makes_no_other_event_late(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    days = [f"u{day % 5},i1,view,2020-01-{day:02}T00:00:00Z" for day in range(1, 20)]
    days.insert(6, "u9,i1,view,2031-01-01T00:00:00Z")
    path.write_text("\n".join(["user_id,item_id,type,timestamp", *days]))

    opened = survey(path, INTERACTIONS, "generic")

    assert len(list(opened.messages)) == 20
    assert opened.report.out_of_order.count == 0


def test_a_price_left_out_is_counted_beside_its_row(tmp_path: Path) -> None:
    path = tmp_path / "meta.jsonl"
    path.write_bytes(b"".join(orjson.dumps(PRODUCT | {"price": p}) for p in ("$5",)) + b"\n")
    with path.open("ab") as file:
        file.write(orjson.dumps(PRODUCT | {"price": "1.299,99 €"}))

    opened = survey(path, ITEMS, "amazon-2023")
    report = [len(list(opened.messages)), opened.report.to_dict()]

    assert report[0] == 2
    assert report[1]["left_out"]["price"]["first"][0]["line"] == 2


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_an_id_written_as_a_decimal_number_is_doubted(tmp_path: Path, column: str) -> None:
    path = tmp_path / "a.csv"
    rows = [EVENT | {column: name} for name in ("77", "77.0", "1.5", "v2.0")]
    path.write_text("\n".join([",".join(EVENT), *(",".join(row.values()) for row in rows)]))

    opened = survey(path, INTERACTIONS, "generic")
    keys = [message.row for message in opened.messages]

    assert keys == [1, 2, 3, 4]
    (doubt,) = opened.report.doubts.values()
    assert doubt.count == 1
    assert doubt.first == [(3, f"{column} 77.0 is another than {column} 77")]


@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("shown", ["1.23457E+11", "1.23457E+23", "1E+23", "1,23457e+23"])
def test_an_id_of_which_a_spreadsheet_shows_the_first_digits_is_no_id(
    tmp_path: Path, column: str, shown: str
) -> None:
    path = tmp_path / "a.jsonl"
    rows = [EVENT | {column: name} for name in (shown, "7.7E+1", "1E5", "e.1E+23", "77E+23")]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))

    opened = survey(path, INTERACTIONS, "generic")

    assert [message.row for message in opened.messages] == [2, 3, 4, 5]
    (refused,) = opened.report.rejected.values()
    assert refused.count == 1
    assert "write all digits" in refused.first[0][1]


def doubts_of(folder: Path, column: str, *ids: str) -> dict[str, list[tuple[int, str]]]:
    path = folder / "a.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(EVENT | {column: name}) for name in ids))
    opened = survey(path, INTERACTIONS, "generic")
    assert len(list(opened.messages)) == len(ids)
    return {what: group.first for what, group in opened.report.doubts.items()}


@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("other", ["077", "+77", "7.7e1", "770e-1", "0.77E2", "0000077"])
def test_two_spellings_of_one_number_are_named(tmp_path: Path, column: str, other: str) -> None:
    for first, second in (("77", other), (other, "77")):
        found = doubts_of(tmp_path, column, first, "78", second, "-77", "770", "7.7")
        said = f"{column} {second} is another than {column} {first}"
        assert found == {"two spellings of one number": [(3, said)]}


def test_other_ids_than_numbers_and_numbers_in_one_spelling_are_no_doubt(tmp_path: Path) -> None:
    ids = ("0001048791", "1048792", "0001048791", "B00", "7a", "1e5", "1e999999999", "0", "e")
    assert doubts_of(tmp_path, "item_id", *ids) == {}


@pytest.mark.parametrize("said", ["77.", "+77.0", "5E+10", "5.e+10"])
def test_an_id_as_only_a_table_tool_writes_it_is_doubted_by_itself(
    tmp_path: Path, said: str
) -> None:
    assert len(doubts_of(tmp_path, "user_id", said)) == 1


@pytest.mark.parametrize("said", [" 31", "31 ", "\t31", "u\u00a0"])
def test_an_id_with_blanks_around_it_is_doubted(tmp_path: Path, said: str) -> None:
    ((what, first),) = doubts_of(tmp_path, "item_id", said, said.strip()).items()

    assert what == "an id with blanks around it"
    assert first == [(1, f"item_id {said!r} is another than item_id {said.strip()!r}")]


def parquet_of(
    folder: Path, name: str, kind: Kind, column: str, cells: pyarrow.Array
) -> ImportReport:
    path = folder / "a.parquet"
    row = next(good.row for good in ROWS if (good.format, good.kind) == (name, kind))
    table = pyarrow.Table.from_pylist([row] * len(cells))
    others = [other for other in table.column_names if other != column]
    pyarrow.parquet.write_table(table.select(others).append_column(column, cells), path)
    opened = survey(path, kind, name, reading=READING)
    list(opened.messages)
    return opened.report


@pytest.mark.parametrize("name", ["generic", "amazon-2023", "movielens"])
def test_times_of_short_floats_are_unusable_for_they_have_moved(tmp_path: Path, name: str) -> None:
    scale = 1 if name == "movielens" else 1000
    times = [964982703.0 * scale]

    exact = parquet_of(tmp_path, name, INTERACTIONS, "timestamp", pyarrow.array(times))
    short = parquet_of(
        tmp_path, name, INTERACTIONS, "timestamp", pyarrow.array(times, pyarrow.float32())
    )

    assert (exact.accepted.count, exact.first_time) == (1, 964982703000)
    assert (short.accepted.count, short.rejected["invalid value"].count) == (0, 1)


def test_ratings_and_prices_of_short_floats_are_read(tmp_path: Path) -> None:
    stars = pyarrow.array([4.5], pyarrow.float32())
    prices = pyarrow.array([2.5], pyarrow.float32())

    assert parquet_of(tmp_path, "movielens", INTERACTIONS, "rating", stars).accepted.count == 1
    report = parquet_of(tmp_path, "amazon-2023", ITEMS, "price", prices)
    assert (report.accepted.count, report.left_out) == (1, {})


@pytest.mark.parametrize("lacking", ["Price", "Description"])
def test_invoice_lines_need_no_price_and_no_description(tmp_path: Path, lacking: str) -> None:
    path = tmp_path / "a.jsonl"
    row = {key: cell for key, cell in SECOND_SPELLING.items() if key != lacking}
    path.write_bytes(b"\n".join([orjson.dumps(row)] * 30))

    assert len(list(survey(path, INTERACTIONS, "online-retail").messages)) == 30


@pytest.mark.parametrize(("written", "left_out"), [("NaN", 0), ("1e400", 1), ("-Infinity", 1)])
def test_a_json_price_that_is_no_number_costs_the_price_only(
    tmp_path: Path, written: str, left_out: int
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"parent_asin": "p", "title": "t", "price": {written}, "x": 1e400}}\n' * 30)

    opened = survey(path, ITEMS, "amazon-2023")

    assert len(list(opened.messages)) == 30
    assert sum(group.count for group in opened.report.left_out.values()) == left_out * 30


def test_a_quoted_text_that_holds_whole_rows_is_doubted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "user_id,item_id,type,timestamp,review\n"
        f'u1,i1,view,{EVENT["timestamp"]},"Heroes\n'
        f"u2,i2,view,{EVENT['timestamp']},ok\n"
        f'u3,i3,view,{EVENT["timestamp"]},TV 32"\n'
        f'u4,i4,view,{EVENT["timestamp"]},"two\nlines, with, some, commas, too"\n'
    )

    opened = survey(path, INTERACTIONS, "generic")

    assert len(list(opened.messages)) == 2
    (doubt,) = opened.report.doubts.values()
    assert (doubt.count, doubt.first[0][0]) == (1, 2)


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

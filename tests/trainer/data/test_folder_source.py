"""Prepared files: three shapes of interactions, one source."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import TrainingError
from models.settings import load_settings
from trainer.data.corpus import Corpus
from trainer.data.folder_source import FolderSource

DAY_S = 86_400


def folder(path: Path, interactions: list[dict], items: list[dict] | None = None) -> Path:
    catalogue = items or [{"item_id": name, "title": f"{name} thing"} for name in "abcdef"]
    pq.write_table(pa.Table.from_pylist(catalogue), path / "items.parquet")
    pq.write_table(pa.Table.from_pylist(interactions), path / "interactions.parquet")
    return path


def test_a_sequence_keeps_its_positions_where_days_are_equal(tmp_path: Path) -> None:
    rows = [
        {"user_id": "ann", "item_id": name, "timestamp": 15_000 * DAY_S, "position": place}
        for place, name in enumerate("fbdaec")
    ]
    corpus = Corpus.from_folder(folder(tmp_path, rows), load_settings(), "leave-one-out")

    (test,), (validation,) = corpus.sessions.test, corpus.sessions.validation
    assert (test.liked(corpus.spec), test.targets) == (("f", "b", "d", "a", "e"), ("c",))
    assert (validation.liked(corpus.spec), validation.targets) == (("f", "b", "d", "a"), ("e",))
    assert test.as_of == 15_000 * DAY_S * 1000  # the history is of the target's day


def test_invoice_lines_are_the_events_that_palate_import_would_send(tmp_path: Path) -> None:
    line = {"user_id": "1", "item_id": "85048", "timestamp": 15_000 * DAY_S, "price": 1.0}
    rows = [
        {**line, "event_type": "purchase", "quantity": 2, "basket_id": "489434"},
        {**line, "event_type": "cancel", "quantity": -2, "basket_id": "C489435"},
    ]

    table = FolderSource(folder(tmp_path, rows)).interactions(0)

    assert table.column("type").to_pylist() == ["purchase", "cancel"]
    assert table.column("quantity").to_pylist() == [2.0, 2.0]
    assert table.column("offset").to_pylist() == [0, 1]


def test_palates_own_fields_are_read_and_unusable_rows_left_out(tmp_path: Path) -> None:
    row = {"user_id": "ann", "item_id": "a", "type": "view", "timestamp": "2020-01-02T00:00:00Z"}
    rows = [row, {**row, "type": "stare"}, {**row, "type": "purchase", "item_id": "b"}]

    source = FolderSource(folder(tmp_path, rows))

    assert source.interactions(0).column("item_id").to_pylist() == ["a", "b"]
    assert source.next_offsets() == {0: 3}  # the second row keeps its offset
    assert source.partitions() == [0]


def test_brand_and_category_path_reach_the_texts(tmp_path: Path) -> None:
    items = [{"item_id": "a", "title": "Red", "brand": "OPI", "categories": "Beauty > Nails"}]
    rows = [{"user_id": "u", "item_id": "a", "timestamp": 15_000 * DAY_S, "position": 0}]

    corpus = Corpus.from_folder(folder(tmp_path, rows, items), load_settings())

    assert corpus.embedding_texts() == (("a",), ["Red. OPI. Beauty > Nails"])
    assert corpus.text_of("a") == "Red, OPI, Nails"
    assert corpus.text_of("nosuch") == ""


def test_columns_that_fit_no_shape_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has columns who, what"):
        FolderSource(folder(tmp_path, [{"who": "ann", "what": "a"}]))

"""The shipped ranking function on public data, held to the figures of an untrained system.

Amazon Beauty 5-core, leave-one-out (the last item is the test), all items ranked, items of the
history left out. Profile, popularity and diversity are off.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as parquet
import pytest

from models.engines.model_files import embedder_model, files_hash
from models.ports import TextEmbedder, VectorRow, Vectors
from models.ranking.catalogue import Catalogue
from models.ranking.cooccurrence_build import PositivePairs, build
from models.ranking.neighbours import Neighbours, align
from models.ranking.queries import Query, Recent
from models.ranking.scoring import rank_batch
from models.schemas import Item
from models.settings import IndexSettings, RankingSettings, Settings
from models.text import embedding_text
from trainer.data.vector_cache import cached_vectors

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY.parent / "shared" / "data" / "amazon14_beauty"
TOLERANCE = 0.003
BATCH = 256

pytestmark = [
    pytest.mark.model,  # embedding 12,101 texts takes two minutes the first time
    pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there"),
]


class Case(NamedTuple):
    """One user: the history newest first, and the item that came after it."""

    user: str
    history: list[str]
    target: str


class Beauty(NamedTuple):
    catalogue: Catalogue
    neighbours: Neighbours
    cases: list[Case]


@pytest.fixture(scope="module")
def beauty() -> Beauty:
    sequences = read_sequences()
    catalogue = Catalogue.of(list(embedded_items()))
    snapshot = build(
        training_evidence(sequences),
        neighbours=IndexSettings().cooccurrence_neighbours,
        half_life_days=IndexSettings().pair_half_life_days,
        popularity_half_life_days=IndexSettings().popularity_half_life_days,
    )
    cases = [
        Case(user, [item for item, _ in events[-2::-1]], events[-1][0])
        for user, events in sequences.items()
    ]
    return Beauty(catalogue, align(snapshot, catalogue), cases)


def read_sequences() -> dict[str, list[tuple[str, int]]]:
    """Per user (item, epoch seconds), oldest first."""
    table = parquet.read_table(DATA / "interactions.parquet").sort_by(
        [("user_id", "ascending"), ("position", "ascending")]
    )
    columns = (table[name].to_pylist() for name in ("user_id", "item_id", "timestamp"))
    sequences: dict[str, list[tuple[str, int]]] = {}
    for user, item, seconds in zip(*columns, strict=True):
        sequences.setdefault(user, []).append((item, seconds))
    return sequences


def training_evidence(sequences: dict[str, list[tuple[str, int]]]) -> PositivePairs:
    """All but the last event of each user; the milliseconds keep the order within a day."""
    rows = [
        (number, item, seconds * 1000 + place)
        for number, events in enumerate(sequences.values())
        for place, (item, seconds) in enumerate(events[:-1])
    ]
    ids, items = np.unique([item for _, item, _ in rows], return_inverse=True)
    return PositivePairs(
        ids=tuple(ids.tolist()),
        users=np.array([user for user, _, _ in rows]),
        items=items,
        weights=np.ones(len(rows)),
        timestamps=np.array([time for _, _, time in rows]),
    )


def embedded_items() -> Iterator[VectorRow]:
    rows = parquet.read_table(DATA / "items.parquet").sort_by("item_id").to_pylist()
    names = [row["item_id"] for row in rows]
    texts = [text_of(row) for row in rows]
    for name, text, vector in zip(names, texts, vectors_of(texts), strict=True):
        yield VectorRow(name, vector, text, 0, {})


def text_of(row: dict[str, str | None]) -> str:
    paths = (row["categories"] or "").replace(" | ", " > ")
    categories = tuple(paths.split(" > "))
    item = Item(
        item_id=row["item_id"], title=row["title"], brand=row["brand"], categories=categories
    )
    return embedding_text(item, 600)


def vectors_of(texts: list[str]) -> Vectors:
    """The embedder's vectors, kept outside git, where the evaluator's test finds them too."""
    settings = Settings()

    def embedder() -> TextEmbedder:
        from models.engines.embedder import SentenceEmbedder  # torch takes seconds to import

        return SentenceEmbedder(embedder_model(settings), settings.embedder)

    weights = files_hash(embedder_model(settings))
    return cached_vectors(texts, embedder, weights, REPOSITORY / "var" / "vectors")


def figures(beauty: Beauty, *, recent: float, cooccurrence: float) -> tuple[float, float]:
    """(NDCG@10, recall@10) with these weights."""
    settings = RankingSettings(
        recent=recent,
        cooccurrence=cooccurrence,
        profile=0.0,
        popularity=0.0,
        diversity=0.0,
        candidates=10,  # without diversity no more are looked at
        exclude_seen=True,
    )
    gains = []
    for start in range(0, len(beauty.cases), BATCH):
        cases = beauty.cases[start : start + BATCH]
        lists = rank_batch(
            beauty.catalogue, beauty.neighbours, [query_of(case) for case in cases], settings
        )
        for case, items in zip(cases, lists, strict=True):
            ranks = [item.rank for item in items if item.item_id == case.target]
            gains.append(1 / np.log2(ranks[0] + 1) if ranks else 0.0)
    return float(np.mean(gains)), float(np.mean(np.array(gains) > 0))


def query_of(case: Case) -> Query:
    recent = [Recent(item, 1.0, str(age)) for age, item in enumerate(case.history)]
    return Query(case.user, recent, seen=frozenset(case.history))


def test_the_data_is_the_published_one(beauty: Beauty) -> None:
    assert (len(beauty.cases), len(beauty.catalogue)) == (22_363, 12_101)


@pytest.mark.parametrize(
    ("recent", "cooccurrence", "ndcg", "recall"),
    [
        pytest.param(0.0, 1.0, 0.046, 0.075, id="co-occurrence alone"),
        pytest.param(1.0, 0.0, 0.030, 0.053, id="text of the history alone"),
        pytest.param(1 / 3, 1.0, 0.056, 0.094, id="text and co-occurrence"),
    ],
)
def test_the_untrained_figures_hold(
    beauty: Beauty, recent: float, cooccurrence: float, ndcg: float, recall: float
) -> None:
    found = figures(beauty, recent=recent, cooccurrence=cooccurrence)
    assert found == (pytest.approx(ndcg, abs=TOLERANCE), pytest.approx(recall, abs=0.005))


def test_the_shipped_weights_are_the_measured_ones() -> None:
    shipped = RankingSettings()
    assert (shipped.recent, shipped.cooccurrence) == (1 / 3, 1.0)

"""The sample's catalogue laid out for the tracker, without the language model's embedder.

Vectors are hashes of words in the embedder's dimension: ranking them costs what ranking real
ones costs.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from models.fakes import HashEmbedder
from models.ports import VectorRow
from models.ranking.cooccurrence import save_snapshot
from models.ranking.cooccurrence_build import PositivePairs, build
from models.ranking.lance_index import LanceIndex
from models.schemas import Item, ReleaseAnnouncement
from models.settings import Settings
from streams.kafka.clients import producer

SAMPLE: Final = Path(__file__).resolve().parents[2] / "data" / "sample"
DIMENSION: Final = 384
RELEASE: Final = "base-0"


@cache
def sample_items() -> tuple[Item, ...]:
    """All items of the sample."""
    rows = pq.read_table(SAMPLE / "items.parquet").to_pylist()
    return tuple(Item(item_id=row["item_id"], title=row["title"] or "?") for row in rows)


@cache
def item_ids() -> tuple[str, ...]:
    """Their ids."""
    return tuple(item.item_id for item in sample_items())


@cache
def _vectors() -> tuple[VectorRow, ...]:
    embedder = HashEmbedder(DIMENSION)
    vectors = embedder.embed([item.title for item in sample_items()])
    return tuple(
        VectorRow(item.item_id, vector, item.title, 0, {})
        for item, vector in zip(sample_items(), vectors, strict=True)
    )


async def lay_out(settings: Settings) -> None:
    """Vectors in LanceDB, a co-occurrence snapshot, items and the serving release in Kafka."""
    index = LanceIndex(settings.lancedb_uri, writer=True)
    index.upsert(f"items@{RELEASE}", _vectors())
    index.close()
    _save_cooccurrence(settings)
    async with producer(settings) as sender:
        for item in sample_items():
            await sender.send(settings.topic("items"), item.to_json(), item.item_id.encode())
        at = time.time_ns() // 1_000_000
        serving = ReleaseAnnouncement(release=RELEASE, status="serving", at=at)
        await sender.send_and_wait(settings.topic("releases"), serving.to_json(), RELEASE.encode())


def _save_cooccurrence(settings: Settings) -> None:
    index = settings.index
    snapshot = build(
        _evidence(),
        neighbours=index.cooccurrence_neighbours,
        half_life_days=index.pair_half_life_days,
        popularity_half_life_days=index.popularity_half_life_days,
    )
    save_snapshot(snapshot, settings.cooccurrence_dir)


@cache
def _evidence() -> PositivePairs:
    rows = pq.read_table(
        SAMPLE / "interactions.parquet", columns=["user_id", "item_id", "timestamp"]
    )
    latest = rows.group_by(["user_id", "item_id"]).aggregate([("timestamp", "max")]).to_pydict()
    ids, items = np.unique(latest["item_id"], return_inverse=True)
    _, users = np.unique(latest["user_id"], return_inverse=True)
    return PositivePairs(
        ids=tuple(ids.tolist()),
        users=users.astype(np.int64),
        items=items.astype(np.int64),
        weights=np.ones(len(users)),
        timestamps=np.array(latest["timestamp_max"], np.int64) * 1000,
    )

"""The sample data: small, attributed, and rich enough to show what Palate does."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from deploy.make_sample import MOST_BYTES, make_sample

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data" / "sample"
ORIGIN = ROOT.parent / "shared" / "data" / "uci_online_retail"
DAY_S = 86_400


def rows(path: Path) -> list[dict[str, Any]]:
    return list(pyarrow.parquet.read_table(path).to_pylist())


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return rows(SAMPLE / "interactions.parquet")


def test_it_is_small_and_names_its_origin() -> None:
    attribution = (SAMPLE / "ATTRIBUTION.md").read_text()

    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < MOST_BYTES
    for owed in ("Online Retail II", "10.1057/dbm.2012.17", "CC BY 4.0", "Changes made"):
        assert owed in attribution


def test_events_stand_in_the_order_of_time(events: list[dict[str, Any]]) -> None:
    times = [event["timestamp"] for event in events]

    assert times == sorted(times)


def test_every_customer_has_a_long_history_with_cancellations(
    events: list[dict[str, Any]],
) -> None:
    times: dict[str, list[int]] = defaultdict(list)
    cancelled: Counter[str] = Counter()
    for event in events:
        times[event["user_id"]].append(event["timestamp"])
        cancelled[event["user_id"]] += event["event_type"] == "cancel"

    assert len(times) == 300
    assert all(40 <= len(of_user) <= 400 for of_user in times.values())
    assert all(max(of_user) - min(of_user) >= 300 * DAY_S for of_user in times.values())
    assert min(cancelled.values()) >= 1


def test_nearly_every_event_is_about_a_known_item(events: list[dict[str, Any]]) -> None:
    known = {item["item_id"] for item in rows(SAMPLE / "items.parquet")}

    unknown = sum(event["item_id"] not in known for event in events)

    assert unknown < 0.001 * len(events)


@pytest.mark.skipif(not ORIGIN.is_dir(), reason="the data that the sample is cut from is absent")
def test_the_committed_sample_is_what_the_script_makes(tmp_path: Path) -> None:
    make_sample(ORIGIN, tmp_path)

    for name in ("items.parquet", "interactions.parquet"):
        assert rows(tmp_path / name) == rows(SAMPLE / name)

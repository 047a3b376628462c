from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from models.ranking.cooccurrence import Cooccurrence, load_current
from models.schemas import Interaction, ProfileEdit
from models.settings import Settings, WindowSettings
from streams.codec import partition_for
from streams.event_log import SegmentLog
from streams.indexer.evidence import read_evidence
from streams.indexer.snapshots import Snapshots
from streams.metrics import IndexerMetrics
from tests.models.ranking.test_cooccurrence import near
from tests.streams.logged import record, record_of

DAY_MS = 86_400_000
NOW = 1_300_000_000_000


def event(
    user: str, item: str, kind: str = "purchase", day: int = 0, name: str = "", **fields: object
) -> dict[str, object]:
    made = Interaction(
        event_id=name or f"{user}-{item}-{kind}-{day}",
        user_id=user,
        item_id=item,
        type=kind,
        timestamp=NOW + day * DAY_MS,
        **fields,
    )
    return {**made.model_dump(mode="python"), "type": kind, "status": "ok", "value": made.to_json()}


def logged(folder: Path, *events: dict[str, object]) -> Path:
    log = SegmentLog(folder)
    start = log.next_offset("interactions", 0)
    rows = [{"offset": start + n, "partition": 0, **fields} for n, fields in enumerate(events)]
    log.append("interactions", 0, rows)
    return folder


def pairs(folder: Path) -> set[tuple[int, str, float, int]]:
    found = read_evidence(folder, WindowSettings())
    return {
        (int(user), found.ids[item], float(weight), int(time - NOW) // DAY_MS)
        for user, item, weight, time in zip(
            found.users, found.items, found.weights, found.timestamps, strict=True
        )
    }


def test_a_pair_has_its_strongest_evidence_and_newest_time(tmp_path: Path) -> None:
    logged(tmp_path, event("u", "a"), event("u", "a", "view", 3), event("v", "a", "cart", 1))
    assert pairs(tmp_path) == {(0, "a", 1.0, 3), (1, "a", 0.6, 1)}


def test_an_event_sent_twice_counts_once(tmp_path: Path) -> None:
    logged(
        tmp_path, event("u", "a", name="e"), event("u", "b", name="e"), event("v", "b", name="e")
    )
    assert pairs(tmp_path) == {(0, "a", 1.0, 0), (1, "b", 1.0, 0)}


def test_impressions_and_rows_that_were_not_accepted_do_not_count(tmp_path: Path) -> None:
    refused = event("u", "b") | {"status": "invalid"}
    logged(
        tmp_path, event("u", "a", "impression"), refused, event("u", "c") | {"status": "forwarded"}
    )
    assert pairs(tmp_path) == set()


@pytest.mark.parametrize(
    "dislike",
    [
        event("u", "a", "cancel", 1),
        event("u", "a", "hide", 1),
        event("u", "a", "rating", 1, rating=1),
    ],
)
def test_dislikes_are_no_evidence(tmp_path: Path, dislike: dict[str, object]) -> None:
    logged(tmp_path, dislike, event("v", "a"))
    assert pairs(tmp_path) == {(0, "a", 1.0, 0)}


def test_a_cancelled_purchase_is_taken_back_and_an_earlier_one_stays(tmp_path: Path) -> None:
    bought = [event("u", "a", day=0), event("u", "a", day=4)]
    logged(
        tmp_path,
        *bought,
        event("u", "a", "cancel", 5),
        event("u", "b"),
        event("u", "b", "cancel", 1),
    )
    assert pairs(tmp_path) == {(0, "a", 1.0, 0)}


def test_a_good_rating_is_evidence(tmp_path: Path) -> None:
    logged(tmp_path, event("u", "a", "rating", rating=5))
    assert pairs(tmp_path) == {(0, "a", 1.0, 0)}


def test_an_empty_log_gives_no_evidence(tmp_path: Path) -> None:
    assert pairs(tmp_path / "nothing") == set()


def test_a_snapshot_follows_the_log_and_is_left_alone_without_news(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    snapshots = Snapshots(settings, IndexerMetrics(CollectorRegistry()))
    logged(settings.log_dir, event("u", "a"), event("u", "b", day=1), event("v", "a"))
    snapshots.refresh()
    first = load_current(settings.cooccurrence_dir)
    assert first is not None
    assert [item for item, _ in near(first, "a")] == ["b"]
    pointer = settings.cooccurrence_dir / "current"
    written = pointer.stat().st_mtime_ns
    snapshots.refresh()
    assert pointer.stat().st_mtime_ns == written
    logged(settings.log_dir, event("v", "c", day=2))
    snapshots.refresh()
    second = load_current(settings.cooccurrence_dir)
    assert second is not None
    assert {item for item, _ in near(second, "a")} == {"b", "c"}


def test_by_default_a_pair_of_one_user_says_less_than_a_pair_of_many(tmp_path: Path) -> None:
    shipped = Settings(data_dir=tmp_path / "shipped")
    without = Settings(data_dir=tmp_path / "without", index={"pair_support": 0.0})
    for settings in (shipped, without):
        logged(settings.log_dir, event("u", "a"), event("u", "b"), event("v", "c"))

    (_, shrunk), (_, plain) = near(counted(shipped), "a")[0], near(counted(without), "a")[0]

    assert 0 < shrunk < 0.8 * plain


def test_what_users_asked_to_be_forgotten_counts_for_no_pair_and_no_popularity(
    tmp_path: Path,
) -> None:
    settings = Settings(data_dir=tmp_path)
    logged(settings.log_dir, *(event(user, item) for user in ("u", "v") for item in ("a", "b")))
    logged(settings.log_dir, event("w", "c"), event("w", "a"))
    before = counted(settings)
    assert {item for item, _ in near(before, "a")} == {"b", "c"}

    forget(settings, "u", "w")
    after = counted(settings)

    assert pairs(settings.log_dir) == {(0, "a", 1.0, 0), (0, "b", 1.0, 0)}
    assert set(after.ids) == {"a", "b"}
    assert after.both.sum() < before.both.sum()


def counted(settings: Settings) -> Cooccurrence:
    Snapshots(settings, IndexerMetrics(CollectorRegistry())).refresh()
    found = load_current(settings.cooccurrence_dir)
    assert found is not None
    return found


def forget(settings: Settings, *users: str) -> None:
    """As the recorder logs such a wish, made after all events."""
    later = NOW + 9 * DAY_MS
    wishes = [ProfileEdit(edit_id=u, user_id=u, action="forget", timestamp=later) for u in users]
    log, partitions = SegmentLog(settings.log_dir), settings.kafka.partitions
    for wish in wishes:
        home = partition_for(wish.user_id.encode(), partitions)
        after = log.next_offset("profile-edits", home)
        record(log, settings, [record_of("profile-edits", home, after, wish, later)])

from __future__ import annotations

from pathlib import Path

from models.schemas import ReleaseAnnouncement
from models.settings import DEFAULT_WEIGHTS as WEIGHTS
from streams.event_log import VIEW_OF, SegmentLog, compact, connect_views
from tests.streams.event_log.rows import invalid_row, row, rows


def test_absent_topics_are_empty_typed_views(tmp_path: Path) -> None:
    connection = connect_views(tmp_path / "nothing", WEIGHTS)
    for view in VIEW_OF.values():
        assert connection.execute(f"SELECT count(*) FROM {view}").fetchone() == (0,)
    types = {line[0]: line[1] for line in connection.execute("DESCRIBE interactions").fetchall()}
    assert (types["user_id"], types["timestamp"], types["rating"]) == (
        "VARCHAR",
        "BIGINT",
        "DOUBLE",
    )


def test_views_count_accepted_and_invalid_rows_apart(tmp_path: Path) -> None:
    SegmentLog(tmp_path).append("interactions", 0, [row(0), invalid_row(1), row(2)])
    found = connect_views(tmp_path, WEIGHTS).execute(
        "SELECT status, count(*), count(event_id) FROM interactions GROUP BY status ORDER BY status"
    )
    assert found.fetchall() == [("invalid", 1, 0), ("ok", 2, 2)]


def test_views_hold_only_segments_that_a_manifest_names(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    log.append("interactions", 0, rows(range(10)))
    log.append("interactions", 0, rows(range(10, 20)))
    compact(log, "interactions", 0, below_rows=100, grace_s=3600)
    assert len(list(log.partition_folder("interactions", 0).glob("*.parquet"))) == 3
    counted = (
        connect_views(tmp_path, WEIGHTS).execute("SELECT count(*) FROM interactions").fetchone()
    )
    assert counted == (20,)


def test_all_partitions_are_in_the_view(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path / "it's here")
    log.append("interactions", 0, [row(0)])
    log.append("interactions", 3, [row(0, partition=3)])
    found = connect_views(log.folder, WEIGHTS).execute(
        'SELECT "partition" FROM interactions ORDER BY 1'
    )
    assert found.fetchall() == [(0,), (3,)]


def test_nested_fields_are_read_as_json(tmp_path: Path) -> None:
    value = b'{"profile_id": "p", "tokens": {"prompt": 7}, "sections": {"now": []}}'
    fields = {"offset": 0, "partition": 0, "status": "ok", "value": value, "profile_id": "p"}
    broken = {"offset": 1, "partition": 0, "status": "invalid", "value": b"\xff\xfe"}
    SegmentLog(tmp_path).append("profiles", 0, [fields, broken])
    found = connect_views(tmp_path, WEIGHTS).execute(
        "SELECT tokens ->> 'prompt' FROM profiles ORDER BY ALL"
    )
    assert found.fetchall() == [("7",), (None,)]


def test_a_releases_own_status_is_its_step(tmp_path: Path) -> None:
    announced = ReleaseAnnouncement(release="base-0", status="serving", at=1_300_000_000_000)
    fields = {"offset": 0, "partition": 0, "status": "ok", "release": "base-0", "step": "serving"}
    SegmentLog(tmp_path).append("releases", 0, [fields | {"value": announced.to_json()}])
    found = connect_views(tmp_path, WEIGHTS).execute("SELECT status, step FROM releases")
    assert found.fetchall() == [("ok", "serving")]

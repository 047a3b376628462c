"""What becomes of the log when its files are damaged, lost, or put back."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import EventLogError, ManifestLost, SegmentDamaged
from streams.event_log import SegmentLog, compact
from streams.event_log.columns import SCHEMAS
from streams.event_log.manifest import FILE_NAME, Missing, SegmentInfo, load_manifest
from streams.event_log.repair import Found, apart, inspected, pieces, repair, set_apart, sweep
from streams.event_log.segment_file import SegmentOrigin
from tests.streams.event_log.rows import rows

TOPIC = "interactions"


@pytest.fixture
def log(tmp_path: Path) -> SegmentLog:
    """Offsets 0..49 in five segments of the topic with id a."""
    return filled(SegmentLog(tmp_path), range(0, 50, 10))


def filled(log: SegmentLog, starts: range) -> SegmentLog:
    for start in starts:
        log.append_from(TOPIC, 0, start, table(range(start, start + starts.step)), "a")
    return log


def table(offsets: range) -> pa.Table:
    return pa.Table.from_pylist(rows(offsets), schema=SCHEMAS[TOPIC])


def folder_of(log: SegmentLog) -> Path:
    return log.partition_folder(TOPIC, 0)


def segment(log: SegmentLog, number: int) -> Path:
    return folder_of(log) / log.segments(TOPIC, 0)[number].file


def offsets(log: SegmentLog) -> list[int]:
    return [found["offset"] for found in log.rows(TOPIC, 0, columns=["offset"])]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Some bytes of the column `value`: the footer, and the size, stay as they were."""
    content = bytearray(path.read_bytes())
    try:
        column = pq.ParquetFile(path).metadata.row_group(0).column(4)
        end = column.data_page_offset + column.total_compressed_size
    except pa.ArrowException:  # it is damaged already
        end = len(content)
    content[max(0, end - 8) : end] = bytes(byte ^ 0xFF for byte in content[max(0, end - 8) : end])
    path.write_bytes(content)


DAMAGES = [truncate, empty, flip, Path.unlink]


# -- the manifest is lost ----------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b'{"version": 1}', b"\xff\xfe"])
def test_a_lost_manifest_is_made_again_from_the_segments(
    log: SegmentLog, content: bytes | None
) -> None:
    manifest = folder_of(log) / FILE_NAME
    before = load_manifest(folder_of(log))
    manifest.unlink() if content is None else manifest.write_bytes(content)
    assert (log.next_offset(TOPIC, 0), log.partitions(TOPIC)) == (50, [0])  # as readers see it
    assert offsets(log) == list(range(50))
    assert repair(folder_of(log)) == before == load_manifest(folder_of(log))
    assert [path.read_bytes() for path in apart(folder_of(log))] == (
        [] if content is None else [content]
    )


def test_appending_beside_a_lost_manifest_makes_it_again_first(log: SegmentLog) -> None:
    (folder_of(log) / FILE_NAME).unlink()
    log.append_from(TOPIC, 0, 50, table(range(50, 60)), "a")
    assert offsets(log) == list(range(60))


def test_nothing_intact_is_swept_when_the_manifest_was_lost(log: SegmentLog) -> None:
    compact(log, TOPIC, 0, below_rows=100, grace_s=3600)  # merged, and its inputs still there
    files = {path.name: path.read_bytes() for path in folder_of(log).glob("*.parquet")}
    (folder_of(log) / FILE_NAME).unlink()
    compact(log, TOPIC, 0, below_rows=100, grace_s=-1)
    assert offsets(log) == list(range(50))
    left = [*folder_of(log).glob("*.parquet"), *apart(folder_of(log))]
    assert {path.name: path.read_bytes() for path in left} == files


def test_a_segment_that_was_lost_with_the_manifest_is_known_to_be_missing(log: SegmentLog) -> None:
    segment(log, 2).unlink()
    (folder_of(log) / FILE_NAME).unlink()
    missing = [(hole.first_offset, hole.last_offset) for hole in repair(folder_of(log)).missing]
    assert missing == [(20, 29)]
    with pytest.raises(EventLogError, match=r"lacks offsets 20\.\.29"):
        offsets(log)


def test_a_damaged_segment_beside_a_lost_manifest_is_missing_by_its_name(log: SegmentLog) -> None:
    truncate(segment(log, 4))
    (folder_of(log) / FILE_NAME).unlink()
    assert [str(hole)[:15] for hole in repair(folder_of(log)).missing] == ["offsets 40..49 "]
    assert log.next_offset(TOPIC, 0) == 50


def test_segments_of_another_topic_or_partition_are_not_taken_for_its_own(
    log: SegmentLog, tmp_path: Path
) -> None:
    filled(SegmentLog(tmp_path / "b"), range(0, 80, 80)).append("profiles", 0, [])
    other = SegmentLog(tmp_path / "b")
    tombstone = {"offset": 50, "partition": 0, "status": "tombstone"}
    other.append("profiles", 0, [tombstone])
    other.append(TOPIC, 1, [row | {"partition": 1} for row in rows(range(60, 70))])
    other.append_from(TOPIC, 2, 0, table(range(70, 80)), "b")
    for path in [
        *other.folder.glob("profiles/0/*.parquet"),
        *other.folder.glob(f"{TOPIC}/[12]/*.parquet"),
    ]:
        (folder_of(log) / path.name).write_bytes(path.read_bytes())
    (folder_of(log) / FILE_NAME).unlink()
    assert repair(folder_of(log)).next_offset in (50, 80)
    skipping = SegmentLog(log.folder, skip_damaged=True)
    assert offsets(skipping) == list(range(50))


def test_a_segment_that_does_not_say_whose_it_is_is_missing(log: SegmentLog) -> None:
    unnamed = segment(log, 1)
    pq.write_table(pq.read_table(unnamed).replace_schema_metadata(None), unnamed)
    (folder_of(log) / FILE_NAME).unlink()
    (missing,) = repair(folder_of(log)).missing
    assert (missing.first_offset, missing.last_offset) == (10, 19)
    skipping = SegmentLog(log.folder, skip_damaged=True)
    assert offsets(skipping) == [*range(10), *range(20, 50)]


def test_overlapping_segments_give_each_offset_once(log: SegmentLog, tmp_path: Path) -> None:
    other = filled(SegmentLog(tmp_path / "b"), range(0, 120, 60))
    for path in other.partition_folder(TOPIC, 0).glob("*.parquet"):
        path.rename(folder_of(log) / path.name)
    segment(other, 0)
    (folder_of(log) / FILE_NAME).unlink()
    repair(folder_of(log))
    assert offsets(log) == list(range(120))


def test_a_partial_overlap_is_cut(log: SegmentLog, tmp_path: Path) -> None:
    """A crash left 40..69 unnamed, and the log went on with 40..49."""
    other = SegmentLog(tmp_path / "b")
    other.append(TOPIC, 0, rows(range(45, 70)))
    (path,) = other.partition_folder(TOPIC, 0).glob("*.parquet")
    path.rename(folder_of(log) / path.name)
    (folder_of(log) / FILE_NAME).unlink()
    with pytest.raises(ManifestLost, match="palate check log"):
        offsets(log)
    repair(folder_of(log))
    assert offsets(log) == list(range(70))


span = st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda s: (s[0], s[0] + s[1]))


@given(st.lists(span, max_size=8, unique=True), st.lists(span, max_size=3, unique=True))
def test_pieces_cover_what_any_segment_holds_each_offset_once(
    found: list[tuple[int, int]], kept: list[tuple[int, int]]
) -> None:
    disjoint: list[tuple[int, int]] = []
    for one in sorted(kept):
        if not disjoint or one[0] > disjoint[-1][1]:
            disjoint.append(one)
    segments = [SegmentInfo(str(one), *one, 1, 1) for one in disjoint]
    origin = SegmentOrigin(TOPIC, 0, None, None)
    chosen = pieces(segments, [Found(SegmentInfo(str(s), *s, 1, 1), origin) for s in found])
    holding = [offset for a, b in disjoint for offset in range(a, b + 1)]
    holding += [offset for p in chosen for offset in range(p.span[0], p.span[1] + 1)]
    assert len(holding) == len(set(holding))
    assert set(holding) == {o for a, b in [*found, *disjoint] for o in range(a, b + 1)}


# -- segments are damaged ----------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_refused_by_name_and_offsets(log: SegmentLog, damage: Any) -> None:
    path = segment(log, 1)
    damage(path)
    with pytest.raises(
        SegmentDamaged, match=rf"{path.name} \(offsets 10\.\.19\).*palate check log"
    ):
        list(log.rows(TOPIC, 0))
    assert [error.file for error in inspected(folder_of(log))] == [path.name]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_skipped_where_that_is_allowed(
    log: SegmentLog, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = segment(log, 1)
    damage(path)
    lenient = SegmentLog(log.folder, skip_damaged=True)
    with caplog.at_level(logging.WARNING):
        found = [row["offset"] for row in lenient.rows(TOPIC, 0)]
        list(lenient.rows(TOPIC, 0))
    assert found == [*range(10), *range(20, 50)]
    assert caplog.text.count(path.name) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_set_apart_and_the_rest_is_merged(
    log: SegmentLog, damage: Any
) -> None:
    path = segment(log, 1)
    damage(path)
    content = path.read_bytes() if path.exists() else None
    try:
        compact(log, TOPIC, 0, below_rows=100)
    except SegmentDamaged as error:
        set_apart(folder_of(log), error.file)
    compact(log, TOPIC, 0, below_rows=100)
    repair(folder_of(log))
    (hole,) = load_manifest(folder_of(log)).missing
    assert (hole.first_offset, hole.last_offset, hole.rows, hole.file) == (10, 19, 10, path.name)
    assert [found.read_bytes() for found in apart(folder_of(log))] == [content] * (
        content is not None
    )
    log.append_from(TOPIC, 0, 50, table(range(50, 60)), "a")
    lenient = SegmentLog(log.folder, skip_damaged=True)
    assert offsets(lenient) == [*range(10), *range(20, 60)]


def test_a_segment_that_reads_well_is_not_set_apart(log: SegmentLog) -> None:
    assert set_apart(folder_of(log), segment(log, 1).name) is None
    assert offsets(log) == list(range(50))


def test_a_damaged_merged_segment_is_made_good_by_what_it_replaced(log: SegmentLog) -> None:
    compact(log, TOPIC, 0, below_rows=100, grace_s=3600)
    truncate(segment(log, 0))
    repair(folder_of(log))
    assert offsets(log) == list(range(50))
    assert load_manifest(folder_of(log)).missing == ()


def test_a_file_that_is_put_back_is_taken_in_again(log: SegmentLog) -> None:
    path = segment(log, 1)
    backup = path.read_bytes()
    truncate(path)
    repair(folder_of(log))
    assert load_manifest(folder_of(log)).missing
    path.write_bytes(backup)
    repair(folder_of(log))
    assert offsets(log) == list(range(50))
    assert load_manifest(folder_of(log)).missing == ()


def test_what_was_missing_is_filled_and_the_rest_is_known(log: SegmentLog) -> None:
    empty(segment(log, 1))
    (hole,) = repair(folder_of(log)).missing
    gone = Missing(10, 13, 4, hole.file, expired=True)
    assert log.fill(TOPIC, 0, hole, table(range(14, 20)), [gone]) == 6
    assert log.fill(TOPIC, 0, hole, table(range(14, 20)), []) == 0  # another recorder did it too
    with pytest.raises(EventLogError, match=r"offsets 10\.\.13 .*backup"):
        offsets(log)
    assert offsets(SegmentLog(log.folder, skip_damaged=True)) == [*range(10), *range(14, 50)]


def test_a_damaged_last_segment_does_not_let_offsets_be_logged_twice(log: SegmentLog) -> None:
    empty(segment(log, 4))
    repair(folder_of(log))
    assert log.next_offset(TOPIC, 0) == 50


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_a_flipped_bit_never_takes_rows_away_silently(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    log = filled(SegmentLog(tmp_path_factory.mktemp("log")), range(0, 30, 30))
    path = segment(log, 0)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    assert readable(log) in (list(range(30)), None)
    assert readable(log, 5, 20) in (list(range(5, 21)), None)


def readable(log: SegmentLog, *span: int) -> list[int] | None:
    """The offsets, or None where the log says that it cannot read them."""
    try:
        return [row["offset"] for row in log.rows(TOPIC, 0, *span, columns=["offset"])]
    except EventLogError:
        return None


# -- what is deleted ---------------------------------------------------------------------------


def test_a_file_that_no_manifest_ever_named_is_set_apart_and_not_deleted(log: SegmentLog) -> None:
    content = segment(log, 0).read_bytes()
    stray = folder_of(log) / f"{0:020d}-{4:020d}.parquet"
    stray.write_bytes(content)
    os.utime(stray, (0, 0))
    assert sweep(folder_of(log), grace_s=3600) == 1
    (kept,) = apart(folder_of(log))
    assert (kept.name, kept.read_bytes()) == (stray.name, content)
    assert offsets(log) == list(range(50))


def test_two_files_of_one_name_are_both_kept_apart(log: SegmentLog) -> None:
    for content in (b"one", b"two"):
        (folder_of(log) / "x.parquet").write_bytes(content)
        sweep(folder_of(log), grace_s=-1)
    assert [path.read_bytes() for path in apart(folder_of(log))] == [b"one", b"two"]


@pytest.mark.parametrize("jump_s", [-10 * 86_400, 10 * 86_400])
def test_a_jump_of_the_clock_loses_nothing(
    log: SegmentLog, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    reading = log.rows(TOPIC, 0)
    seen = [next(reading)["offset"]]
    compact(log, TOPIC, 0, below_rows=100)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump_s)
    compact(log, TOPIC, 0, below_rows=100)
    seen += [row["offset"] for row in reading]
    assert seen == offsets(log) == list(range(50))


def test_a_log_is_of_one_topic(log: SegmentLog) -> None:
    with pytest.raises(EventLogError, match="another topic"):
        log.append_from(TOPIC, 0, 50, table(range(50, 60)), "b")
    assert offsets(log) == list(range(50))


# -- anything, in any order --------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["record", "compact", "manifest", *(d.__name__ for d in DAMAGES)]),
            st.integers(0, 7),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_whatever_is_damaged_each_offset_is_there_once_or_known_to_be_missing(
    tmp_path_factory: pytest.TempPathFactory, planned: list[tuple[str, int]]
) -> None:
    log = SegmentLog(tmp_path_factory.mktemp("log"), skip_damaged=True)
    harm = {damage.__name__: damage for damage in DAMAGES}
    logged = 0
    filled(log, range(0, 5, 5))
    logged = 5
    for action, number in planned:
        if action == "record":
            start = repair(folder_of(log)).next_offset
            log.append_from(TOPIC, 0, start, table(range(start, start + number + 1)), "a")
            logged = max(logged, start + number + 1)
        elif action == "compact":
            try:
                compact(log, TOPIC, 0, below_rows=20, grace_s=-1)
            except SegmentDamaged as error:
                set_apart(folder_of(log), error.file)
        elif action == "manifest":
            (folder_of(log) / FILE_NAME).unlink(missing_ok=True)
        else:
            files = sorted(folder_of(log).glob("*.parquet"))
            if files:
                harm[action](files[number % len(files)])
    manifest = repair(folder_of(log))
    for error in inspected(folder_of(log)):
        set_apart(folder_of(log), error.file)
    manifest = load_manifest(folder_of(log))
    known = {o for hole in manifest.missing for o in range(hole.first_offset, hole.last_offset + 1)}
    found = offsets(log)
    assert found == sorted(set(found))
    assert not known & set(found)
    assert known | set(found) == set(range(manifest.next_offset))
    assert manifest.next_offset <= logged

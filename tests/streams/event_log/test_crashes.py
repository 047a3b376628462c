"""The log after a crash between any two steps of an append or a compaction."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import EventLogError
from streams.event_log import SegmentLog, compact
from streams.event_log.columns import SCHEMAS
from tests.streams.event_log.rows import rows

TOPIC = "interactions"


class Crash(BaseException):
    """The process ends here."""


class DiesAt:
    """Lets `steps` calls of the disk through; dies before or after the next one."""

    def __init__(self, steps: int, after: bool) -> None:
        self.steps = steps
        self.after = after

    def __call__(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            self.steps -= 1
            if self.steps == -1 and not self.after:
                raise Crash
            result = real(*args, **options)
            if self.steps == -1:
                raise Crash
            return result

        return step


def crashing(work: Callable[[], object], dies: DiesAt) -> bool:
    """Run `work`; True if it died."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", dies(os.replace))
        patch.setattr(os, "fsync", dies(os.fsync))
        patch.setattr(os, "rename", dies(os.rename))
        patch.setattr(Path, "unlink", dies(Path.unlink))
        try:
            work()
        except Crash:
            return True
    return False


class ARecorder:
    """Reads a topic of `end` records from where the log ends, as the real one does."""

    def __init__(self, folder: Path, end: int) -> None:
        self.log = SegmentLog(folder)
        self.end = end

    def record(self, count: int) -> None:
        start = self.log.next_offset(TOPIC, 0)
        chosen = rows(range(start, min(start + count, self.end)))
        if chosen:
            table = pa.Table.from_pylist(chosen, schema=SCHEMAS[TOPIC])
            self.log.append_from(TOPIC, 0, start, table)

    def logged(self) -> list[int]:
        return [found["offset"] for found in self.log.rows(TOPIC, 0, columns=["offset"])]


death = st.builds(DiesAt, st.integers(0, 12), st.booleans())
actions = st.lists(
    st.tuples(st.sampled_from(["record", "compact"]), st.integers(1, 9), death), max_size=12
)


@given(actions)
@settings(max_examples=40)
def test_each_offset_is_logged_once_through_crashes_between_any_two_steps(
    tmp_path_factory: pytest.TempPathFactory, planned: list[tuple[str, int, DiesAt]]
) -> None:
    recorder = ARecorder(tmp_path_factory.mktemp("log"), end=40)
    for action, count, dies in planned:
        before = recorder.logged()
        if action == "record":
            crashing(lambda count=count: recorder.record(count), dies)
        else:
            crashing(lambda: compact(recorder.log, TOPIC, 0, below_rows=20, grace_s=-1), dies)
        after = recorder.logged()
        assert after[: len(before)] == before
        assert after == list(range(len(after)))
    for _ in range(40):
        recorder.record(9)
    assert recorder.logged() == list(range(40))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("steps", range(14))
def test_what_a_crash_leaves_behind_is_swept_up(tmp_path: Path, steps: int, after: bool) -> None:
    recorder = ARecorder(tmp_path, end=40)
    for _ in range(4):
        recorder.record(5)
    crashing(
        lambda: (recorder.record(5), compact(recorder.log, TOPIC, 0, below_rows=20, grace_s=-1)),
        DiesAt(steps, after),
    )
    compact(recorder.log, TOPIC, 0, below_rows=20, grace_s=-1)
    folder = recorder.log.partition_folder(TOPIC, 0)
    named = {segment.file for segment in recorder.log.segments(TOPIC, 0)}
    assert {path.name for path in folder.iterdir()} == named | {"manifest.json", ".lock"}


def test_a_full_disk_is_an_error_after_which_recording_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = ARecorder(tmp_path, end=40)
    recorder.record(5)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EventLogError, match="No space left"):
            recorder.record(5)
    folder = recorder.log.partition_folder(TOPIC, 0)
    assert not list(folder.glob(".*.tmp"))
    recorder.record(5)
    assert recorder.logged() == list(range(10))

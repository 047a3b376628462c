"""A run's record on disk, its table of states, and what is kept beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import TrainingError
from models.ports import InForce
from trainer.pipeline.record import TRANSITIONS, RunRecord, RunRecords, after, new_name

UNTIL = {"interactions": {0: 7, 1: 3}, "items": {0: 2}, "profile-edits": {}}
NOW_MS = 1_300_000_000_000
RUN = RunRecord("r-1", InForce("base-0", 3), UNTIL, "settings-1", NOW_MS, "r-1", judged_by="gate-1")


@pytest.fixture
def records(tmp_path: Path) -> RunRecords:
    return RunRecords(tmp_path)


def test_a_record_is_read_as_it_was_written(records: RunRecords) -> None:
    refused = after(RUN, "gate refused", "the gate held it back")
    for record in (replace(RUN, run="r-2"), refused):
        records.save(record)

    assert records.all() == [refused, replace(RUN, run="r-2")]


def test_every_state_can_be_reached_and_promotion_by_hand_is_open_to_all_that_made_a_release() -> (
    None
):
    reached = {state for events in TRANSITIONS.values() for state in events.values()}

    assert reached | {"planned"} == set(TRANSITIONS)
    assert all("serve" in events for state, events in TRANSITIONS.items() if state != "promoted")


def test_what_is_judged_again_is_the_same_run_with_another_release() -> None:
    held_back = after(RUN, "gate refused", "")
    again = replace(after(held_back, "judge again", ""), release="r-2", judged_by="gate-2")

    assert held_back.refused == {"r-1": "gate-1"}
    assert again.releases == ("r-1", "r-2")
    assert after(again, "gate refused", "").refused == {"r-1": "gate-1", "r-2": "gate-2"}
    assert after(again, "withdraw", "").release == "r-1"


def test_a_name_that_is_taken_is_not_given_again() -> None:
    first = new_name(NOW_MS, ())

    assert new_name(NOW_MS, {first}) > first


def test_a_damaged_record_is_an_error_and_one_of_another_layout_is_left_out(
    records: RunRecords, tmp_path: Path
) -> None:
    records.save(RUN)
    for name, text in (("r-2", '{"run": "r-2"}'), ("r-3", "[]")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(text)
    assert records.all() == [RUN]

    (tmp_path / "runs" / "r-3" / "run.json").write_text("{")
    with pytest.raises(TrainingError, match="remove it to begin anew"):
        records.all()


def test_a_folder_of_an_older_layout_is_no_run(records: RunRecords, tmp_path: Path) -> None:
    (tmp_path / "runs" / "r-1-0a1b2c3d" / "warm-start").mkdir(parents=True)
    (tmp_path / "plan.json").write_text('{"release": "r-1"}')

    assert records.all() == []


def worked(records: RunRecords, record: RunRecord, key: str = "key") -> Path:
    """The run's folder, with a log and with texts about users."""
    folder = records.work(records.save(record), key)
    (folder / "gate").mkdir(parents=True)
    (folder / "log.jsonl").touch()
    (folder / "gate" / "answers-1.jsonl").touch()
    return folder


def test_a_dropped_run_leaves_its_record_if_it_made_something_and_else_nothing(
    records: RunRecords, tmp_path: Path
) -> None:
    dropped = replace(RUN, state="dropped")
    made = worked(records, dropped)
    nothing = worked(records, replace(dropped, run="r-2", release="r-2"))
    records.clear(frozenset({"r-1"}), lambda _: True)

    assert (made.exists(), nothing.parent.exists()) == (False, False)
    assert records.all() == [dropped]


def test_the_newest_runs_keep_their_logs_and_only_those_that_need_them_texts(
    records: RunRecords,
) -> None:
    runs = [replace(RUN, run=f"r-{n}", state="promoted") for n in range(5)]
    folders = [worked(records, run) for run in (replace(runs[0], state="planned"), *runs[1:])]
    records.clear(frozenset(), lambda run: run.state == "planned")

    assert [folder.exists() for folder in folders] == [True, False, True, True, True]
    texts = [(folder / "gate" / "answers-1.jsonl").exists() for folder in folders]
    assert texts == [True, False, False, False, False]
    assert len(records.all()) == 5


def test_what_was_begun_with_other_settings_is_named(records: RunRecords) -> None:
    worked(records, RUN, "key-1")
    worked(records, replace(RUN, run="r-2"), "key-2")

    assert records.set_aside(RUN, "key-1") is None
    assert "key-1 in" in (records.set_aside(RUN, "key-2") or "")

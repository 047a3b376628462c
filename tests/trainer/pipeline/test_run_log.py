"""The log of a run survives kills and is continued."""

from __future__ import annotations

from pathlib import Path

from trainer.pipeline.json_state import RunLog


def test_records_come_back_in_order_and_by_kind(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run" / "log.jsonl")
    log.write("step", 0, loss=0.5)
    log.write("round", 0, reward=0.1)

    assert [record["kind"] for record in log.records()] == ["step", "round"]
    assert list(log.records("step")) == [{"kind": "step", "round": 0, "loss": 0.5}]


def test_a_resumed_run_forgets_what_it_makes_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    for round_ in range(4):
        log.write("round", round_)

    log.forget_from(2)

    assert [record["round"] for record in log.records()] == [0, 1]


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    log.write("round", 0)
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"kind": "rou')

    assert len(list(log.records())) == 1
    log.forget_from(9)
    log.write("round", 1)
    assert [record["round"] for record in log.records()] == [0, 1]

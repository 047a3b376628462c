"""The table and the curves of a run, from its log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.pipeline.json_state import RunLog
from trainer.rlso.report import curves_of, difference, table_of, write_report

FIGURES = {"tokens": 40.0, "copied": 0.1, "entropy": 6.0, "repeated": 0.0, "commonest": 0.1}


def log_of(path: Path) -> RunLog:
    log = RunLog(path)
    validation(log, -1, [0.2, 0.4])
    log.write("step", 0, step=1, epoch=0, loss=0.5, kl=0.02, gradient=1.0, ratio=0.0)
    log.write("round", 0, reward=0.35, ndcg=0.2, grounding=0.8, figures=FIGURES)
    validation(log, 0, [0.3, 0.5])
    return log


def validation(log: RunLog, round_: int, rewards: list[float]) -> None:
    parts = ("reward", "ndcg", "served")
    users = dict.fromkeys(parts, rewards)
    means: dict[str, Any] = dict.fromkeys(parts, sum(rewards) / 2)
    log.write(
        "validation", round_, **means, grounding=0.9, shuffled=0.1, figures=FIGURES, users=users
    )


def test_differences_to_the_start_are_paired_by_user(tmp_path: Path) -> None:
    start, after = log_of(tmp_path / "log.jsonl").records("validation")

    found = difference(start, after, "reward")

    assert tuple(found) == pytest.approx((0.1, 0.1, 0.1))  # all users gained the same


def test_the_table_has_a_line_for_each_validation(tmp_path: Path) -> None:
    lines = table_of(list(log_of(tmp_path / "log.jsonl").records())).splitlines()

    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 0", "| 1"]
    assert "+0.1000 (+0.1000 … +0.1000)" in lines[3]


def test_the_curves_take_each_figure_where_it_was_made(tmp_path: Path) -> None:
    rows = list(curves_of(list(log_of(tmp_path / "log.jsonl").records())))

    assert [row["round"] for row in rows] == [0, 0, 0, 1]
    assert [row.get("held-out reward") for row in rows] == [pytest.approx(0.3), None, None, 0.4]
    assert rows[2]["training reward"] == 0.35


def test_the_report_is_written_beside_the_log(tmp_path: Path) -> None:
    log_of(tmp_path / "log.jsonl")

    paths = write_report(tmp_path / "log.jsonl", tmp_path)

    assert [path.name for path in paths] == ["validation.md", "curves.jsonl", "curves.png"]
    assert all(path.stat().st_size > 0 for path in paths)

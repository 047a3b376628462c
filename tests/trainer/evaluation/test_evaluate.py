"""An evaluation of systems whose ranks are known."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from pathlib import Path

import numpy as np
import orjson
import pytest

from models.errors import TrainingError
from models.training_settings import EvaluationSettings
from tests.trainer.corpora import bought, corpus_of, items, settings_with
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.evaluation.evaluate import EvaluationReport, evaluate
from trainer.evaluation.plots import learning_curves, metric_by_slice
from trainer.evaluation.report import columns_of, rows_of, setting_of, short_table, write
from trainer.evaluation.systems import ScoreMatrix

SETTINGS = EvaluationSettings(ks=(1, 10), resamples=100)


class Oracle:
    """Knows the targets; puts `ahead` other items before them."""

    def __init__(self, corpus: Corpus, name: str, ahead: int) -> None:
        self.name, self._corpus, self._ahead = name, corpus, ahead

    def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
        found = np.zeros((len(sessions), len(self._corpus.item_ids)), np.float32)
        for row, session in zip(found, sessions, strict=True):
            targets = [self._corpus.row_of[target] for target in session.targets]
            others = [n for n in range(len(row)) if n not in targets]
            row[targets] = 1
            row[others[: self._ahead]] = 2
        return found


@pytest.fixture
def corpus() -> Corpus:
    """Three users, each a purchase a day for 20 days; from day 16 on item i9 again and again."""
    events = [
        bought(user, f"i{day % 9}" if day < 16 else "i9", day)
        for day in range(20)
        for user in ("ann", "bob", "cat")
    ]
    return corpus_of(events, items(*(f"i{n}" for n in range(12))), settings_with())


def test_one_item_ahead_of_the_target_gives_rank_2(corpus: Corpus) -> None:
    systems = [Oracle(corpus, "exact", 0), Oracle(corpus, "second", 1)]

    found = evaluate(corpus, systems, corpus.sessions.test, SETTINGS)

    assert found.interval("exact", "ndcg@10") == (1, 1, 1)
    assert found.interval("second", "recall@1").mean == 0
    assert found.interval("second", "ndcg@10").mean == pytest.approx(1 / log2(3))
    assert found.difference("exact", "second", "mrr").mean == pytest.approx(0.5)


def test_with_masking_targets_had_before_are_left_out_and_counted(corpus: Corpus) -> None:
    mask = SETTINGS.model_copy(update={"mask_seen": True})

    with pytest.raises(TrainingError, match="no session to evaluate"):
        evaluate(corpus, [Oracle(corpus, "exact", 0)], corpus.sessions.test, mask)

    opened = evaluate(corpus, [Oracle(corpus, "exact", 0)], corpus.sessions.validation, mask)
    assert opened.skipped == 3  # i9 was had in the second of the two; in the first it was new
    assert len(opened.users) == 3


def test_a_system_of_another_catalogue_is_refused(corpus: Corpus) -> None:
    class Short:
        name = "short"

        def scores(self, sessions: Sequence[Session]) -> ScoreMatrix:
            return np.zeros((len(sessions), 3), np.float32)

    with pytest.raises(TrainingError, match="short scored"):
        evaluate(corpus, [Short()], corpus.sessions.test, SETTINGS)


def test_slices_part_the_sessions_and_name_what_is_cold(corpus: Corpus) -> None:
    found = evaluate(corpus, [Oracle(corpus, "exact", 0)], corpus.sessions.test, SETTINGS)

    assert sum(mask.sum() for mask in found.slices["history"].values()) == len(found.users)
    assert list(found.slices["targets"]) == ["with a cold item"]  # i9 came after the training
    assert (found.counts["cold_users"], found.counts["cold_target_items"]) == (0, 1)
    assert found.repeated == 1.0


@pytest.fixture
def report(corpus: Corpus) -> EvaluationReport:
    systems = [Oracle(corpus, "star", 0), Oracle(corpus, "second", 1)]
    return evaluate(corpus, systems, corpus.sessions.test, SETTINGS)


def test_the_table_sets_every_system_against_the_training_free_one(
    report: EvaluationReport,
) -> None:
    head, (star, second) = columns_of(report), list(rows_of(report))

    assert head[-1] == "NDCG@10 − star"
    assert (star[0], star[-1]) == ("star", "")
    assert second[2] == "0.6309 [0.6309, 0.6309]"
    assert second[-1] == "-0.3691 [-0.3691, -0.3691]"
    assert len(next(short_table(report))) == len(list(short_table(report))[1])


def test_systems_are_set_against_those_that_the_setting_names_and_were_measured(
    corpus: Corpus,
) -> None:
    settings = SETTINGS.model_copy(update={"against": ("star", "absent", "second")})
    systems = [Oracle(corpus, name, rank) for rank, name in enumerate(("star", "second", "third"))]
    report = evaluate(corpus, systems, corpus.sessions.test, settings)

    assert columns_of(report)[-2:] == ("NDCG@10 − star", "NDCG@10 − second")
    assert [row[-1][:7] for row in rows_of(report)] == ["+0.3691", "", "-0.1309"]


def test_the_report_says_how_it_was_ranked(report: EvaluationReport) -> None:
    said = setting_of(report)

    assert "ranked like all others" in said
    assert "100.0% of the targets are such items" in said


def test_a_run_folder_holds_table_results_and_sessions(
    report: EvaluationReport, tmp_path: Path
) -> None:
    write(report, tmp_path, {"command": "palate evaluate"})

    results = orjson.loads((tmp_path / "results.json").read_bytes())
    with np.load(tmp_path / "sessions.npz") as sessions:
        assert sessions["star/ndcg@10"].tolist() == [1.0] * len(report.users)
    assert results["systems"]["second"]["metrics"]["ndcg@10"][0] == pytest.approx(0.63093)
    assert results["about"] == {"command": "palate evaluate"}
    assert "| second | 1.0000" in (tmp_path / "table.md").read_text()


def test_pictures_are_drawn(report: EvaluationReport, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5, "kl": null}\n')

    drawn = metric_by_slice(report, "history", tmp_path / "by.png")
    curves = learning_curves(log, ("loss", "kl"), tmp_path / "curves.png")

    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert curves.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(TrainingError, match="holds none of reward"):
        learning_curves(log, ("reward",), tmp_path / "none.png")

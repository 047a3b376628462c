"""The evaluator and its baselines on public data, held to figures from an independent script.

Amazon Beauty 5-core, leave-one-out, all items ranked, items had before left out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from models.engines.model_files import embedder_model, files_hash
from models.ports import TextEmbedder
from models.settings import IndexSettings, Settings, load_settings
from trainer.baselines.counted import PopularitySystem, users_per_item
from trainer.data.corpus import Corpus
from trainer.evaluation.context import Context
from trainer.evaluation.evaluate import EvaluationReport, evaluate
from trainer.evaluation.registry import build_systems

REPOSITORY = Path(__file__).parents[3]
DATA = REPOSITORY.parent / "shared" / "data" / "amazon14_beauty"
TOLERANCE = 0.003
FIGURES = {  # recall@10, NDCG@10
    "last-item-text": (0.060, 0.036),
    "history-text": (0.053, 0.030),
    "cooccurrence": (0.075, 0.046),
    "star": (0.094, 0.056),
}

POPULARITY = (0.0115, 0.0054)  # with the validation's items not counted

pytestmark = [
    pytest.mark.model,  # two minutes of ranking; embedding 12,101 texts takes as long once
    pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there"),
]


def load_embedder(settings: Settings) -> TextEmbedder:
    from models.engines.embedder import SentenceEmbedder  # torch takes seconds to import

    return SentenceEmbedder(embedder_model(settings), settings.embedder)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.from_folder(DATA, load_settings(), "leave-one-out")


@pytest.fixture(scope="module")
def report(corpus: Corpus) -> EvaluationReport:
    settings = Settings(index=IndexSettings(pair_support=0.0))  # that script does not shrink
    vectors = REPOSITORY / "var" / "vectors"  # outside version control
    context = Context(
        corpus,
        settings,
        lambda: load_embedder(settings),
        files_hash(embedder_model(settings)),
        vectors,
    )
    systems = build_systems(list(FIGURES), context)
    return evaluate(corpus, systems, corpus.sessions.test, settings.train.evaluation)


def test_all_users_and_items_of_the_published_data_are_ranked(report: EvaluationReport) -> None:
    assert (len(report.users), len(set(report.users)), report.items) == (22_363, 22_363, 12_101)
    assert (report.masked, report.skipped) == (True, 0)


@pytest.mark.parametrize(("system", "figures"), FIGURES.items())
def test_a_baseline_is_where_an_independent_script_has_it(
    report: EvaluationReport, system: str, figures: tuple[float, float]
) -> None:
    found = tuple(report.interval(system, metric).mean for metric in ("recall@10", "ndcg@10"))

    assert found == pytest.approx(figures, abs=TOLERANCE)


def test_popularity_is_where_the_script_has_it(corpus: Corpus) -> None:
    """So small a figure needs a narrow test; the script counts what the training holds."""
    past, chosen = corpus.at_validation(), Settings().train.evaluation
    system = PopularitySystem("popularity", users_per_item(past))

    report = evaluate(past, [system], past.sessions.test, chosen)

    found = tuple(report.interval("popularity", metric).mean for metric in ("recall@10", "ndcg@10"))
    assert found == pytest.approx(POPULARITY, abs=0.0003)

"""Learned systems by their names, from data to a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.engines.embedder import SentenceEmbedder
from models.schemas import Interaction
from models.settings import EmbedderSettings, Settings, load_settings
from streams.event_log import SegmentLog
from tests.streams.logged import record, record_of
from tests.trainer.corpora import bought, corpus_of, items
from tests.trainer.learning.tiny_embedder import tiny_embedder
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session
from trainer.evaluation.context import Context
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.registry import build_systems
from trainer.learning.builders import learned_folder, ranking_validation, raw_history
from trainer.learning.sequence_system import HistoryReader, next_items

GOODS = ("cup", "jam", "pot", "tea", "tin", "hat", "bag", "pin", "mat", "fan", "oil", "ink")
LEARNED = ("noprofile", "noprofile-shuffled", "noprofile-cl", "sasrec", "star-sasrec")


def ring(users: int = 30) -> list[Interaction]:
    """Every user goes through the goods in one order, from a start of their own."""
    return [
        bought(f"user-{user}", GOODS[(user + step) % len(GOODS)], user + 3 * step)
        for user in range(users)
        for step in range(6)
    ]


def ring_corpus(settings: Settings) -> Corpus:
    return corpus_of(ring(), items(*GOODS, "unsold"), settings, "leave-one-out")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("learned")
    embedder = tiny_embedder(folder, ("thing", *GOODS))
    settings = load_settings(
        data_dir=folder / "data",
        embedder={"model": str(embedder)},
        train={
            "contrastive": {"steps": 60, "batch": 24, "learning_rate": 1e-2, "validate_every": 30},
            "sasrec": {
                "width": 16,
                "layers": 1,
                "epochs": 25,
                "batch": 8,
                "learning_rate": 0.01,
                "dropout": 0.1,
            },
        },
    )

    def made() -> SentenceEmbedder:
        return SentenceEmbedder(embedder, EmbedderSettings(model=str(embedder)))

    return Context(ring_corpus(settings), settings, made, "tiny", folder / "vectors")


def test_learned_systems_find_an_order_that_texts_do_not_know(context: Context) -> None:
    report = evaluate(
        context.corpus,
        build_systems(LEARNED, context),
        context.corpus.sessions.test,
        context.settings.train.evaluation,
    )
    ndcg = {name: float(report.values(name, "ndcg@5").mean()) for name in LEARNED}

    assert ndcg["sasrec"] > 0.9
    assert ndcg["star-sasrec"] > 0.9
    assert ndcg["noprofile-cl"] > ndcg["noprofile"]


def test_what_was_learned_is_read_back(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    first = build_systems(["sasrec", "noprofile-cl"], context)
    before = [system.scores(context.corpus.sessions.test) for system in first]

    with caplog.at_level("INFO"):
        again = build_systems(["sasrec", "noprofile-cl"], context)

    assert "epoch" not in caplog.text
    for system, scores in zip(again, before, strict=True):
        np.testing.assert_allclose(system.scores(context.corpus.sessions.test), scores, atol=1e-5)


def test_other_settings_are_learned_in_another_folder(context: Context) -> None:
    build_systems(["sasrec"], context)
    sasrec = context.settings.train.sasrec.model_copy(update={"width": 8})
    train = context.settings.train.model_copy(update={"sasrec": sasrec})

    other = replace(context, settings=context.settings.model_copy(update={"train": train}))
    build_systems(["sasrec"], other)

    folders = sorted((context.settings.data_dir / "learned").glob("sasrec-*"))
    assert len(folders) == 2


def test_one_more_event_of_the_log_is_learned_in_another_folder(
    context: Context, tmp_path: Path
) -> None:
    fast = {"width": 8, "heads": 1, "layers": 1, "epochs": 1}
    settings = load_settings(data_dir=tmp_path, kafka={"partitions": 1}, train={"sasrec": fast})
    log, goods = SegmentLog(settings.log_dir), items(*GOODS)
    events = [*ring(8), bought("user-0", "cup", 99)]
    record(log, settings, (record_of("items", 0, n, item) for n, item in enumerate(goods)))

    def learn(since: int, until: int) -> None:
        rows = [
            record_of("interactions", 0, since + n, event, event.timestamp)
            for n, event in enumerate(events[since:until])
        ]
        record(log, settings, rows)
        corpus = Corpus.from_log(log, settings, "leave-one-out")
        build_systems(["sasrec"], replace(context, corpus=corpus, settings=settings))

    learn(0, len(events) - 1)
    learn(len(events) - 1, len(events))

    assert len(list((tmp_path / "learned").glob("sasrec-event log-*"))) == 2


def test_what_is_masked_unlike_the_protocol_is_learned_in_another_folder(context: Context) -> None:
    def folder(mask_seen: bool | None) -> Path:
        evaluation = context.settings.train.evaluation.model_copy(update={"mask_seen": mask_seen})
        train = context.settings.train.model_copy(update={"evaluation": evaluation})
        settings = context.settings.model_copy(update={"train": train})
        return learned_folder(replace(context, settings=settings), "noprofile-cl")

    assert folder(None) == folder(True) != folder(False)  # leave-one-out leaves out items had


def test_the_best_step_is_chosen_by_what_is_ranked(context: Context) -> None:
    """A user who buys the same again tells nothing where items had are left out."""
    events = [bought("ann", good, day) for day, good in enumerate(("cup", "jam", "pot", "cup"))]
    events += [bought("bob", good, day) for day, good in enumerate(("cup", "jam", "pot", "tea"))]
    corpus = corpus_of(events, items(*GOODS), context.settings, "leave-one-out")
    text_of = raw_history(corpus, context.settings)
    sessions = corpus.sessions.test

    def value(chosen: Sequence[Session], mask_seen: bool) -> float:
        judge = ranking_validation(corpus, text_of, context.settings, chosen, mask_seen=mask_seen)
        return judge(context.embedder.embed)

    (again,) = [one for one in sessions if one.user_id == "ann"]
    (new,) = [one for one in sessions if one.user_id == "bob"]
    assert value(sessions, mask_seen=True) == value([new], mask_seen=True)
    both = [value([one], mask_seen=False) for one in (again, new)]
    assert value(sessions, mask_seen=False) == pytest.approx(np.mean(both))


def test_items_that_nobody_had_stand_below_all_others(context: Context) -> None:
    (system,) = build_systems(["sasrec"], context)

    scores = system.scores(context.corpus.sessions.test)

    assert (scores.argmin(axis=1) == context.corpus.row_of["unsold"]).all()


def test_the_sequence_model_has_learned_what_validation_held(
    context: Context, tmp_path: Path
) -> None:
    """A good that is sold in the validation alone is known to the model that is tested."""
    events = [
        bought(f"user-{user}", item, user + 3 * step)
        for user in range(6)
        for step, item in enumerate(("cup", "jam", "pot", "late", "tea"))
    ]
    corpus = corpus_of(events, items(*GOODS, "late"), context.settings, "leave-one-out")
    late = corpus.row_of["late"]
    assert late in corpus.known_events.items
    assert late not in corpus.training_events.items

    settings = context.settings.model_copy(update={"data_dir": tmp_path})

    (system,) = build_systems(["sasrec"], replace(context, corpus=corpus, settings=settings))

    scores = system.scores(corpus.sessions.test)
    assert (scores[:, late] > scores.min(axis=1)).all()  # the goods that nobody had are below it


def test_histories_are_read_oldest_first_without_what_was_never_trained(context: Context) -> None:
    reader = HistoryReader(context.corpus, context.corpus.known_events)
    session = context.corpus.sessions.test[0]
    reader.trained[context.corpus.row_of[session.liked(context.corpus.spec)[1]]] = False

    rows = reader.rows(session)

    liked = [context.corpus.row_of[item] for item in session.liked(context.corpus.spec)]
    assert rows.tolist() == [liked[0], *liked[2:]]


def test_training_stops_by_what_is_ranked(context: Context) -> None:
    """Items had before are masked here: among them no target, or it would stand alone."""
    settings = load_settings(train={"evaluation": {"mask_seen": True}})
    again = [
        bought(f"user-{user}", GOODS[(user + n) % 3], 2 * n) for user in (1, 2) for n in range(9)
    ]
    corpus = corpus_of([*ring(), *again], items(*GOODS), settings, "leave-one-out")
    reader = HistoryReader(corpus, corpus.training_events)

    held_out = next_items(corpus, reader, settings)

    repeated = sum(
        session.targets[0] in session.liked(corpus.spec) for session in corpus.sessions.validation
    )
    assert repeated > 0
    assert len(held_out.targets) == len(corpus.sessions.validation) - repeated
    for history, target in zip(held_out.histories, held_out.targets, strict=True):
        assert target not in history

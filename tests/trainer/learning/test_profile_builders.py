"""Profiles written by a model, as systems: names, folders, the control, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.engines.embedder import SentenceEmbedder
from models.engines.tokens import token_counter
from models.errors import TrainingError
from models.settings import EmbedderSettings, load_settings
from tests.trainer.corpora import bought, corpus_of, items
from tests.trainer.learning.tiny_embedder import tiny_embedder
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.evaluation.context import Context
from trainer.evaluation.registry import build_systems
from trainer.learning.builders import extractive_profile_of
from trainer.learning.policy import Policy, policy_options
from trainer.learning.policy_answers import answers_file
from trainer.learning.profile_builders import Learned, written_profiles
from trainer.learning.profile_systems import texts_of

GOODS = ("cup", "jam", "pot", "tea", "tin", "hat", "bag", "pin")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("profiles")
    embedder = tiny_embedder(folder, ("thing", "Now", "buys", *GOODS))
    settings = load_settings(
        data_dir=folder / "data",
        profile={"model": str(tiny_llama(folder / "llama")), "max_new_tokens": 8},
        embedder={"model": str(embedder)},
        train={
            "policy": {"rank": 2, "max_prompt_tokens": 2000},
            "sasrec": {"width": 8, "heads": 1, "layers": 1, "epochs": 2},
        },
    )
    events = [
        bought(f"user-{user}", GOODS[(2 * user + step) % len(GOODS)], user + 3 * step)
        for user in range(4)
        for step in range(5)
    ]
    corpus = corpus_of(events, items(*GOODS), settings, "leave-one-out")

    def made() -> SentenceEmbedder:
        return SentenceEmbedder(embedder, EmbedderSettings(model=str(embedder)))

    return Context(corpus, settings, made, "tiny", folder / "vectors")


def test_the_control_ranks_for_each_user_by_anothers_profile(context: Context) -> None:
    own, control = build_systems(["profile", "profile+shuffled"], context)
    sessions = context.corpus.sessions.test

    scores, shuffled = own.scores(sessions), control.scores(sessions)

    assert not np.isclose(scores, shuffled).all(axis=1).any()
    rows = {tuple(np.round(row, 5)) for row in scores}
    assert {tuple(np.round(row, 5)) for row in shuffled} == rows  # the same profiles, moved


def test_answers_are_written_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = build_systems(["profile"], context)
    scores = first.scores(context.corpus.sessions.test)

    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("an answer was written again")

    monkeypatch.setattr(Policy, "sample", no_more)
    (again,) = build_systems(["profile"], context)

    np.testing.assert_array_equal(again.scores(context.corpus.sessions.test), scores)


def test_answers_of_another_length_or_other_weights_are_not_read_back(tmp_path: Path) -> None:
    llama, other = tiny_llama(tmp_path / "a" / "llama"), tiny_llama(tmp_path / "b" / "llama")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")

    files = {
        answers_file(tmp_path, base, adapter, tokens)
        for base in (llama, other)
        for adapter in (None, llama)
        for tokens in (8, 12)
    }

    assert len(files) == 8


def test_sessions_of_one_time_have_profiles_of_their_own(context: Context) -> None:
    """In leave-one-out what was bought on one day makes several sessions of one time."""
    events = [bought("ann", good, 1, name=f"{n}") for n, good in enumerate(GOODS)]
    corpus = corpus_of(events, items(*GOODS), context.settings, "leave-one-out")
    sessions = [*corpus.sessions.train, *corpus.sessions.validation, *corpus.sessions.test]
    assert len({session.as_of for session in sessions}) == 1

    texts = texts_of(written_profiles(replace(context, corpus=corpus), Learned()))(sessions)

    alone = [
        written_profiles(replace(context, corpus=corpus), Learned())([session])[0].text
        for session in sessions
    ]
    assert texts == alone
    assert len(set(texts)) == len(texts)


def test_profiles_are_as_long_as_served(context: Context) -> None:
    profile = context.settings.profile.model_copy(update={"max_tokens": 16})
    settings = context.settings.model_copy(update={"profile": profile})
    count, sessions = token_counter(Path(profile.model)), context.corpus.sessions.test

    longest, short, extractive = (
        max(count(text) for text in texts)
        for texts in (
            texts_of(written_profiles(context, Learned()))(sessions),
            texts_of(written_profiles(replace(context, settings=settings), Learned()))(sessions),
            [extractive_profile_of(context.corpus, settings)(one).text for one in sessions],
        )
    )

    assert longest > 16 >= max(short, extractive)


def test_what_is_sampled_otherwise_in_service_is_said(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    profile = context.settings.profile.model_copy(update={"temperature": 0.7})
    settings = context.settings.model_copy(update={"profile": profile})

    written_profiles(context, Learned())
    assert caplog.text == ""
    written_profiles(replace(context, settings=settings), Learned())
    assert "served with profile.temperature 0.7" in caplog.text


def test_a_folder_brings_its_adapter_and_embedder(context: Context, tmp_path: Path) -> None:
    model = Path(context.settings.profile.model)
    Policy.load(model, policy_options(context.settings)).save(tmp_path / "adapter")
    other = tiny_embedder(tmp_path, ("thing", *GOODS), seed=5)

    learned = Learned.of(tmp_path)
    assert (learned.adapter, learned.embedder) == (tmp_path / "adapter", other)

    (system,) = build_systems([f"profile:{tmp_path}"], context)
    (base,) = build_systems(["profile"], context)
    sessions = context.corpus.sessions.test
    assert system.name == f"profile:{tmp_path}"
    assert not np.allclose(system.scores(sessions), base.scores(sessions))


def test_a_folder_may_be_the_adapter_itself(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")

    assert Learned.of(tmp_path) == Learned(tmp_path, None)


def test_a_folder_without_either_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="neither an adapter nor an embedder"):
        Learned.of(tmp_path)


def test_a_hybrid_with_the_sequence_model_ranks(context: Context) -> None:
    (system,) = build_systems(["profile+sasrec"], context)

    scores = system.scores(context.corpus.sessions.test)

    assert scores.shape == (4, len(GOODS))
    assert np.isfinite(scores).all()


def test_unknown_names_are_refused(context: Context) -> None:
    with pytest.raises(TrainingError, match="no system is called profile\\+magic"):
        build_systems(["profile+magic"], context)

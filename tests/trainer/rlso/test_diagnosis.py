"""What could be learned from, on the shipped sample."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from models.errors import TrainingError
from models.fakes import HashEmbedder
from models.settings import Settings
from models.training_settings import RlsoSettings
from tests.trainer.learning import planted
from trainer.data.corpus import Corpus
from trainer.learning.policy import Policy, PolicyOptions
from trainer.reward.rewards import Target, log_lift, ndcg
from trainer.rlso.diagnosis import asked_of, diagnose, rewards_of, worth_of

SAMPLE = Path(__file__).parents[3] / "data" / "sample"
RLSO = RlsoSettings(samples=3, min_tokens=0)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.from_folder(SAMPLE, Settings())


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    source = planted.model(tmp_path_factory.mktemp("planted"), positions=1_024)
    return Policy.load(source, PolicyOptions(max_new_tokens=8), device="cpu")


def test_rewards_and_texts_are_measured_and_measured_again_the_same(
    corpus: Corpus, policy: Policy
) -> None:
    embedder = HashEmbedder()
    items = embedder.embed(corpus.embedding_texts()[1])

    first, again = (
        diagnose(corpus, policy, embedder, items, RLSO, 6, mask_seen=False, max_tokens=256)
        for _ in range(2)
    )

    named = [line.split(" | ")[0].removeprefix("| ") for line in first.splitlines()]
    assert [name for name in named if name and name[0] not in "|-"] == [
        "reward",
        "NDCG",
        "log-lift",
        "NDCG + 0.1 log-lift",
        "share of the softmax",
        "text",
        "its own words",
        "as served",
        "the list in the prompt",
        "extractive profile",
    ]
    assert first == again


def test_nobody_to_ask_about_is_a_clear_error(corpus: Corpus, policy: Policy) -> None:
    items = np.zeros((len(corpus.item_ids), HashEmbedder().dimension), np.float32)

    with pytest.raises(TrainingError, match="no training user has a next item and a prompt"):
        diagnose(corpus, policy, HashEmbedder(), items, RLSO, 0, mask_seen=False, max_tokens=256)


def test_no_more_users_are_asked_than_wanted_and_none_twice(corpus: Corpus, policy: Policy) -> None:
    asked = asked_of(corpus, policy, 6, 0, mask_seen=False)

    assert 0 < len(asked) <= 6
    assert len({prompt.request.user_id for prompt in asked}) == len(asked)


def test_the_sum_has_the_weights_of_the_settings() -> None:
    scores, target = np.array([0.3, 0.2, 0.1]), Target(np.array([1]), np.array([], np.int64))

    found = [reward(scores, target) for reward in rewards_of(RLSO).values()]

    ranked, lift = ndcg(scores, target), log_lift(scores, target, RLSO.similarity_temperature)
    odds = [math.exp(score / RLSO.similarity_temperature) for score in scores]
    assert found == pytest.approx([ranked, lift, ranked + 0.1 * lift, odds[1] / sum(odds)])


def test_a_texts_worth_is_the_mean_over_its_users_texts() -> None:
    first, second = (Target(np.array([row]), np.array([], np.int64)) for row in (0, 1))
    scores = np.array([[3, 2, 1], [1, 3, 2], [3, 2, 1], [3, 2, 1]], np.float32)  # two texts each

    line = worth_of({"both": scores}, [first, second]).splitlines()[-1]

    expected = ((1 + 1 / math.log2(4)) / 2 + 1 / math.log2(3)) / 2
    assert line.startswith(f"| both | {expected:.4f} (")

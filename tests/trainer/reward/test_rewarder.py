"""Answers are judged by the profile that the live system would make of them."""

from __future__ import annotations

import numpy as np
import pytest

from models.fakes import HashEmbedder
from models.settings import WindowSettings
from models.training_settings import RlsoSettings
from tests.trainer.users import session
from trainer.data.cases import Prompted, cases, prompted
from trainer.reward.rewarder import Answer, Judged, Rewarder, checked

TEXTS = {
    "bag": "Red lunch bag",
    "box": "Blue lunch box",
    "tin": "Red cake tin",
    "lamp": "Garden lamp",
}
ROWS = {item: row for row, item in enumerate(TEXTS)}
SETTINGS = RlsoSettings(min_tokens=2, max_tokens=20)


@pytest.fixture
def asked() -> list[Prompted]:
    sessions = [session("u", ("bag",), ("tin",)), session("v", ("box",), ("lamp",))]
    found = cases(sessions, ROWS, WindowSettings(), mask_seen=True)
    return [prompted(case, WindowSettings(), TEXTS.__getitem__) for case in found]


def judge_of(
    asked: list[Prompted], *answers: list[str], stand_ins: bool = True
) -> tuple[Rewarder, Judged]:
    embedder = HashEmbedder()
    rewarder = Rewarder(
        embedder,
        embedder.embed(list(TEXTS.values())),
        checked(lambda text: len(text.split()), 256, stand_ins=stand_ins),
        SETTINGS,
    )
    given = [[Answer(text, len(text.split()), True) for text in group] for group in answers]
    return rewarder, rewarder.judge(asked, given)


def test_only_what_the_events_bear_out_is_in_the_profile_and_in_the_reward(
    asked: list[Prompted],
) -> None:
    _, judged = judge_of(asked[:1], [" red lunch bag", " garden lamp", " red lunch bag; diamonds"])

    assert judged.rewards.grounding.tolist() == [1.0, 0.0, 0.5]
    assert all("lamp" not in text and "iamond" not in text for text in judged.profiles)
    assert judged.rewards.length.tolist() == [1.0, 1.0, 1.0]


def test_a_model_gains_nothing_by_failing_the_check(asked: list[Prompted]) -> None:
    answers = [" red lunch bag", " red lunch bag; diamonds", " diamonds"]
    _, served = judge_of(asked[:1], answers)
    _, own = judge_of(asked[:1], answers, stand_ins=False)

    assert len(set(served.profiles)) == 3  # extractive sentences stand in for the diamonds
    assert own.profiles == ["Right now: Red lunch bag"] * 2 + [""]
    assert own.rewards.ndcg[0] == own.rewards.ndcg[1]
    assert own.rewards.total[0] > own.rewards.total[1] > own.rewards.total[2]
    # All four items, bar the bag that was had, share their ranks.
    assert own.rewards.ndcg[2] == pytest.approx((1 + 1 / np.log2(3) + 1 / 2) / 3)


def test_equal_profiles_have_equal_rewards_to_the_bit(asked: list[Prompted]) -> None:
    _, judged = judge_of(asked, [" red bag", " red bag"], [" lunch box", " lunch box"])

    assert np.ptp(judged.rewards.total[:2]) == 0.0
    assert np.ptp(judged.rewards.total[2:]) == 0.0


def test_titles_copied_word_for_word_are_watched(asked: list[Prompted]) -> None:
    _, judged = judge_of(asked, [" red lunch bag"], [" box"])

    assert judged.figures.copied == 0.5


def test_the_control_ranks_with_the_profile_of_another_user(asked: list[Prompted]) -> None:
    rewarder, judged = judge_of(asked, [" red"], [" lunch box"])
    scores = judged.vectors @ HashEmbedder().embed(list(TEXTS.values())).T

    better = [np.sum(scores[1, [0, 1, 2, 3]] > scores[1, 2]), np.sum(scores[0] > scores[0, 3])]

    seen_above = [scores[1, ROWS["bag"]] > scores[1, 2], scores[0, ROWS["box"]] > scores[0, 3]]
    ranks = [1 + above - seen for above, seen in zip(better, seen_above, strict=True)]
    wanted = np.mean([1 / np.log2(rank + 1) for rank in ranks])
    assert rewarder.shuffled(asked, judged) == pytest.approx(wanted)

"""What a policy could learn from on a corpus, before it is trained.

The signal of each reward over K answers to some training prompts, and what other texts about the
same users would be worth: the model is only asked to shorten a list of titles, so they bound what
its words can gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.errors import TrainingError
from models.ports import TextEmbedder, Vectors
from models.profile.assembly import compose
from models.profile.prompts import list_of
from models.training_settings import RlsoSettings
from trainer.data.cases import Prompted, cases, prompted
from trainer.data.corpus import Corpus, newest_of_each, sample_users
from trainer.evaluation.bootstrap import interval
from trainer.learning.policy import Policy
from trainer.reward.rewarder import Answer, Rewarder, checked
from trainer.reward.rewards import Floats, Target, log_lift, ndcg
from trainer.rlso.signal import Reward, signals, table_of


def diagnose(
    corpus: Corpus,
    policy: Policy,
    embedder: TextEmbedder,
    items: Vectors,
    settings: RlsoSettings,
    prompts: int,
    *,
    mask_seen: bool,
    max_tokens: int,
) -> str:
    """Markdown: the rewards' signal and the texts' worth, over at most so many training users.

    `max_tokens`: of a profile. Raises TrainingError if none of them can be asked about.
    """
    asked = asked_of(corpus, policy, prompts, settings.seed, mask_seen=mask_seen)
    if not asked:
        raise TrainingError(
            f"{corpus.name}: no training user has a next item and a prompt that fits "
            "train.policy.max_prompt_tokens; name other data or raise the setting"
        )
    answers = _answers(policy, asked, settings)
    own_words = checked(policy.count_tokens, max_tokens, stand_ins=False)
    rewarder = Rewarder(embedder, items, own_words, settings)
    judged = rewarder.judge(asked, answers)
    scores = (judged.vectors @ items.T).astype(np.float64)
    by_prompt = scores.reshape(len(asked), settings.samples, -1)
    targets = [prompt.target for prompt in asked]
    texts = {"its own words": judged.profiles} | other_texts(asked, answers, policy, max_tokens)
    return "\n\n".join(
        (
            table_of(signals(by_prompt, targets, rewards_of(settings), settings.seed)),
            worth_of(
                {name: rewarder.embed(some) @ items.T for name, some in texts.items()}, targets
            ),
        )
    )


def asked_of(
    corpus: Corpus, policy: Policy, prompts: int, seed: int, *, mask_seen: bool
) -> list[Prompted]:
    """What the policy is asked of the newest sessions of some users; prompts too long left out."""
    told = newest_of_each(sample_users(corpus.sessions.train, prompts, seed))
    found = cases(told, corpus.row_of, corpus.spec, mask_seen=mask_seen)
    asked = (prompted(case, corpus.spec, corpus.text_of) for case in found)
    return [prompt for prompt in asked if policy.fits(prompt.prompt)]


def rewards_of(settings: RlsoSettings) -> Mapping[str, Reward]:
    """The parts of the reward that look at next items, their sum with its weights, and what R²ec
    has in the place of the log-lift."""

    def lift(scores: Floats, target: Target) -> float:
        return log_lift(scores, target, settings.similarity_temperature)

    def both(scores: Floats, target: Target) -> float:
        return ndcg(scores, target) + settings.similarity * lift(scores, target)

    def share(scores: Floats, target: Target) -> float:
        logits = scores / settings.similarity_temperature
        logits[target.seen] = -np.inf
        odds = np.exp(logits - logits.max())
        return float(odds[target.next].sum() / odds.sum())

    return {
        "NDCG": ndcg,
        "log-lift": lift,
        f"NDCG + {settings.similarity:g} log-lift": both,
        "share of the softmax": share,
    }


def _answers(
    policy: Policy, asked: Sequence[Prompted], settings: RlsoSettings
) -> list[list[Answer]]:
    drawn = policy.sample(
        [prompt.prompt for prompt in asked],
        settings.samples,
        temperature=settings.temperature,
        seed=settings.seed,
    )
    return [[Answer(r.text, len(r.completion_ids), r.finished) for r in group] for group in drawn]


def other_texts(
    asked: Sequence[Prompted], answers: Sequence[Sequence[Answer]], policy: Policy, max_tokens: int
) -> dict[str, list[str]]:
    """Texts of the same users, by what they are: one or several for each prompt, in their order."""
    limits = policy.count_tokens, max_tokens
    return {
        "as served": [
            compose(prompt.request, answer.text, *limits).text
            for prompt, group in zip(asked, answers, strict=True)
            for answer in group
        ],
        "the list in the prompt": [list_of(prompt.request) for prompt in asked],
        "extractive profile": [compose(prompt.request, None, *limits).text for prompt in asked],
    }


def worth_of(scores: Mapping[str, Vectors], targets: Sequence[Target]) -> str:
    """Markdown: NDCG of each kind of text, with a 95 % interval over users.

    `scores` are [texts, items], the same number of texts for each target, in their order.
    """
    lines = ["| text | NDCG |", "|---|---|"]
    for name, rows in scores.items():
        by_target = rows.astype(np.float64).reshape(len(targets), -1, rows.shape[1])
        worth = [
            np.mean([ndcg(row, target) for row in group])
            for group, target in zip(by_target, targets, strict=True)
        ]
        found = interval(np.array(worth))
        lines.append(f"| {name} | {found.mean:.4f} ({found.low:.4f} … {found.high:.4f}) |")
    return "\n".join(lines)

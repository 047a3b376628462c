"""Answers of the model → checked profiles → vectors → rewards and watch figures.

An answer is judged by the profile that `compose` makes of it: checked against the events and
embedded by the frozen decoder. As served, extractive sentences stand in where it failed. What a
model learns from has none of them: they hold whole titles, which rank well, so that a model was
rewarded for failing the check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from models.ports import TextEmbedder, Vectors
from models.profile.assembly import Composed, compose
from models.profile.evidence import section_events
from models.profile.grounding import statements
from models.profile.prompts import first_section
from models.schemas import ProfileRequest
from models.training_settings import RlsoSettings
from trainer.data.cases import Prompted
from trainer.reward.reward_hacking import ShownAnswer, WatchFigures, watch
from trainer.reward.rewards import Rewards, ndcg, rewards

Compose = Callable[[ProfileRequest, str], Composed]  # request, answer → checked profile


def checked(
    count_tokens: Callable[[str], int], max_tokens: int, *, stand_ins: bool = True
) -> Compose:
    """The profiler's own way from an answer to a profile.

    `max_tokens`: `profile.max_tokens`, as served; `stand_ins` as in `compose`.
    """
    return lambda request, answer: compose(
        request, answer, count_tokens, max_tokens, stand_ins=stand_ins
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote for a prompt."""

    text: str
    tokens: int
    finished: bool  # ended by itself, not cut off


@dataclass(frozen=True, slots=True)
class Judged:
    """A batch of answers, judged. Arrays and lists are [answers], prompt by prompt."""

    rewards: Rewards
    figures: WatchFigures
    profiles: list[str]
    vectors: Vectors


class Rewarder:
    """Gives rewards with one frozen decoder: an embedder and the catalogue's vectors under it."""

    def __init__(
        self, embedder: TextEmbedder, items: Vectors, compose: Compose, settings: RlsoSettings
    ) -> None:
        """`items` [catalogue, dimension]: under `embedder`, in the order of the targets' rows."""
        self._embedder = embedder
        self._items = items
        self._compose = compose
        self._settings = settings

    def judge(self, asked: Sequence[Prompted], answers: Sequence[Sequence[Answer]]) -> Judged:
        """Judge the answers of each prompt."""
        pairs = [
            (prompt, answer)
            for prompt, group in zip(asked, answers, strict=True)
            for answer in group
        ]
        composed = [self._compose(prompt.request, answer.text) for prompt, answer in pairs]
        vectors = self.embed([profile.text for profile in composed])
        return Judged(
            rewards=self._rewards(pairs, composed, vectors),
            figures=watch([written(prompt, answer) for prompt, answer in pairs]),
            profiles=[profile.text for profile in composed],
            vectors=vectors,
        )

    def shuffled(self, asked: Sequence[Prompted], judged: Judged) -> float:
        """Mean NDCG when each profile ranks for the next prompt's user: the control.

        One answer for each prompt. It must lie below the users' own, or the profiles say nothing
        of their users.
        """
        scores = np.roll(judged.vectors, 1, axis=0) @ self._items.T
        ranked = [
            ndcg(row.astype(np.float64), prompt.target)
            for row, prompt in zip(scores, asked, strict=True)
        ]
        return float(np.mean(ranked)) if ranked else 0.0

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[texts, dimension], as `embedded`."""
        return embedded(texts, self._embedder, self._items.shape[1])

    def _rewards(
        self,
        pairs: Sequence[tuple[Prompted, Answer]],
        composed: Sequence[Composed],
        vectors: Vectors,
    ) -> Rewards:
        return rewards(
            vectors,
            self._items,
            [prompt.target for prompt, _ in pairs],
            [profile.counts for profile in composed],
            [answer.tokens if answer.finished else None for _, answer in pairs],
            self._settings,
        )


def embedded(texts: Sequence[str], embedder: TextEmbedder, dimension: int) -> Vectors:
    """[texts, dimension]. Equal texts get equal vectors, to the bit: a group of them has no
    variance. A profile that says nothing is 0: it ranks as chance does."""
    distinct = sorted(set(texts) - {""})
    vectors = np.zeros((len(distinct) + 1, dimension), np.float32)
    vectors[:-1] = embedder.embed(distinct)
    row_of = {text: row for row, text in enumerate([*distinct, ""])}
    return vectors[[row_of[text] for text in texts]]


def written(prompt: Prompted, answer: Answer) -> ShownAnswer:
    """An answer in the form that the watch figures are taken of."""
    events = section_events(prompt.request)
    return ShownAnswer(
        statements=tuple(said for _, said in statements(answer.text, first_section(events))),
        titles=tuple(dict.fromkeys(event.text for event in chain.from_iterable(events.values()))),
        tokens=answer.tokens,
    )

"""Prompts of nobody's history, for a release's canary.

A manifest is kept as long as its release, and a wish to be forgotten does not reach it. So what
stands in it is made of the catalogue: no user's items together, and no reviews.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from models.profile.prompts import render
from models.schemas import Interaction, InteractionType
from models.settings import WindowSettings
from streams.windows import DAY_MS, HOUR_MS, History, entry_of
from trainer.data.corpus import Corpus
from trainer.data.sessions import Session, request_of

PROMPTS: Final = 16  # more than a canary has lines: a policy may find some of them too long
ITEMS: Final = 6  # of each, two in every window: few lines, as a young history has them


def canary_prompts(corpus: Corpus, seed: int) -> list[str]:
    """The same for the same catalogue, end of the data and seed."""
    chance = random.Random(seed)
    count = min(ITEMS, len(corpus.item_ids))
    drawn = [chance.sample(corpus.item_ids, count) for _ in range(PROMPTS)]
    return [
        render(request_of(_invented(items, corpus), corpus.spec, corpus.text_of)) for items in drawn
    ]


def _invented(items: Sequence[str], corpus: Corpus) -> Session:
    """Somebody who bought these items, oldest first, and nothing after."""
    as_of = corpus.data_range.borders.end
    return Session(
        user_id="nobody",
        partition=0,
        as_of=as_of,
        applied_offset=len(items) - 1,
        history=_purchases(items, as_of, corpus.spec),
        targets=(),
        target_time=as_of,
        last_target_time=as_of,
        last_target_offset=len(items),
    )


def _purchases(items: Sequence[str], as_of: int, spec: WindowSettings) -> History:
    """In turn from the middle of the long, the medium and the short window."""
    windows = (spec.long_days * DAY_MS, spec.medium_days * DAY_MS, spec.short_hours * HOUR_MS)
    bought = [
        Interaction(
            event_id=f"event-{n}",
            user_id="nobody",
            item_id=item,
            type=InteractionType.PURCHASE,
            timestamp=as_of - int(windows[n * len(windows) // len(items)] / 2),
        )
        for n, item in enumerate(items)
    ]
    return tuple(entry_of(one, offset) for offset, one in enumerate(bought))

"""What a refresh trains on: all that is new, and replayed old sessions in proportion to it.

So a refresh costs in proportion to the new events and still sees enough of the old ones not to
forget them (methods §4, incremental update with replay).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from models.ports import Release
from models.training_settings import SessionSettings
from trainer.sessions import Session


def trained_until(release: Release) -> int:
    """Event time (epoch ms) up to which a release has learned; 0 for one that has not."""
    return int(release.data_range.get("train_end", 0))


def chosen(sessions: Sequence[Session], since: int, settings: SessionSettings) -> list[Session]:
    """Sessions whose targets reach past `since`, and `settings.replay` times as many older ones.

    The older ones are a seeded choice; all stay in the order of `sessions`.
    """
    old = [place for place, session in enumerate(sessions) if session.last_target_time < since]
    new = len(sessions) - len(old)
    wanted = min(len(old), round(new * settings.replay))
    replayed = set(random.Random(settings.seed).sample(old, wanted))
    left_out = set(old) - replayed
    return [session for place, session in enumerate(sessions) if place not in left_out]


def steps_for(examples: int, batch: int, passes: float, most: int) -> int:
    """Optimiser steps for so many passes over the examples, at most `most`."""
    return min(most, math.ceil(examples * passes / batch))

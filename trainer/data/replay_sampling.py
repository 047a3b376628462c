"""What a refresh trains on: all that is new, and replayed old sessions in proportion to it.

So a refresh costs in proportion to the new events and still sees enough of the old ones not to
forget them (methods §8.10).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from models.ports import Release
from models.training_settings import SessionSettings
from trainer.data.sessions import Session


@dataclass(frozen=True, slots=True)
class Seen:
    """What a release has learned from this log; empty for one that has not."""

    train_end: int = 0  # event time (epoch ms) before which it learned
    next_offsets: Mapping[int, int] = field(default_factory=dict)  # after the last it had read

    def has(self, session: Session) -> bool:
        """Whether the session's targets were there to be learned from.

        Not if they lie past the training's end, where the release was validated and tested, and
        not if they were logged later: old history may be imported at any time.
        """
        read = self.next_offsets.get(session.partition, 0)
        logged_later = bool(self.next_offsets) and session.last_target_offset >= read
        return session.last_target_time < self.train_end and not logged_later


UNTAUGHT: Final = Seen()


def seen_by(release: Release) -> Seen:
    """What its manifest says.

    Nothing for one that learned from other data (`source`, as the starter release has it): their
    times and offsets are not those of this log, and cannot be compared with them.
    """
    told = release.data_range
    if "source" in told:
        return UNTAUGHT
    offsets = {int(partition): offset for partition, offset in told.get("next_offsets", {}).items()}
    return Seen(int(told.get("train_end", 0)), offsets)


def chosen(sessions: Sequence[Session], seen: Seen, settings: SessionSettings) -> list[Session]:
    """Sessions not learned from yet, and `settings.replay` times as many older ones.

    The older ones are a seeded choice; all stay in the order of `sessions`.
    """
    old = [place for place, session in enumerate(sessions) if seen.has(session)]
    new = len(sessions) - len(old)
    wanted = min(len(old), round(new * settings.replay))
    replayed = set(random.Random(settings.seed).sample(old, wanted))
    left_out = set(old) - replayed
    return [session for place, session in enumerate(sessions) if place not in left_out]


def steps_for(examples: int, batch: int, passes: float, most: int) -> int:
    """Optimiser steps for so many passes over the examples, at most `most`."""
    return min(most, math.ceil(examples * passes / batch))

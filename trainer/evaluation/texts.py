"""What the texts that systems rank by are like: how long they are, and how much of them is true.

A profile is worth having for being short and borne out by events too, which no ranking shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np

from models.profile.assembly import Composed
from trainer.data.sessions import Session
from trainer.evaluation.bootstrap import interval, per_user
from trainer.reward.rewards import grounding

HEAD: Final = ("system", "tokens", "95 % have at most", "borne out", "by the model")


@runtime_checkable
class ReadsTexts(Protocol):
    """A system that ranks by a text about the user."""

    name: str

    def texts(self, sessions: Sequence[Session]) -> Sequence[str]:
        """The text of each session."""
        ...


@runtime_checkable
class WritesProfiles(Protocol):
    """A system that ranks by what a language model wrote."""

    def profiles(self, sessions: Sequence[Session]) -> Sequence[Composed]:
        """The checked profile of each session."""
        ...


def to_markdown(
    systems: Sequence[ReadsTexts], sessions: Sequence[Session], count_tokens: Callable[[str], int]
) -> str:
    """A page with one row for each system."""
    rows = [_row(system, sessions, count_tokens) for system in systems]
    lines = [HEAD, ("---", *["---:"] * (len(HEAD) - 1)), *rows]
    return "\n".join(
        (
            "# The texts that were ranked by",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            f"{len(sessions)} sessions. tokens: of the language model, mean; borne out: share of "
            "the model's statements that the events bear out, mean over users, with its 95 % "
            "interval; by the model: share of the profile's sentences that the model wrote, the "
            "others are built from events.",
            "",
        )
    )


def _row(
    system: ReadsTexts, sessions: Sequence[Session], count_tokens: Callable[[str], int]
) -> tuple[str, ...]:
    profiles = system.profiles(sessions) if isinstance(system, WritesProfiles) else ()
    texts = [profile.text for profile in profiles] or system.texts(sessions)
    lengths = np.array([count_tokens(text) for text in texts])
    checked = _checked(profiles, sessions) if profiles else ("", "")
    return system.name, f"{lengths.mean():.0f}", f"{np.quantile(lengths, 0.95):.0f}", *checked


def _checked(profiles: Sequence[Composed], sessions: Sequence[Session]) -> tuple[str, str]:
    counts = [profile.counts for profile in profiles]
    made = [row for row, one in enumerate(counts) if one.kept + one.rejected]
    users = [sessions[row].user_id for row in made]
    share = interval(per_user(users, np.array([grounding(counts[row]) for row in made])))
    kept = sum(one.kept for one in counts)
    sentences = kept + sum(one.extractive for one in counts)
    borne_out = f"{share.mean:.3f} [{share.low:.3f}, {share.high:.3f}]"
    return borne_out, f"{kept / max(1, sentences):.3f}"


def write(
    systems: Sequence[ReadsTexts],
    sessions: Sequence[Session],
    count_tokens: Callable[[str], int],
    path: Path,
) -> Path:
    """The page as a file; its path."""
    path.write_text(to_markdown(systems, sessions, count_tokens))
    return path

"""Sessions as tasks of the profile model: a prompt, and the items that its profile is to rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from models.profile.prompts import render
from models.schemas import ProfileRequest
from models.settings import WindowSettings
from trainer.data.sessions import Session, request_of
from trainer.reward.rewards import Target


@dataclass(frozen=True, slots=True)
class Case:
    """A session whose next items can be ranked. Its request is made when it is used: with 500
    interactions it is a megabyte."""

    session: Session
    target: Target


@dataclass(frozen=True, slots=True)
class Prompted:
    """A case with what the model is asked."""

    request: ProfileRequest
    prompt: str
    target: Target


def cases(
    sessions: Iterable[Session],
    row_of: Mapping[str, int],
    spec: WindowSettings,
    *,
    mask_seen: bool,
) -> list[Case]:
    """The sessions with at least one next item in the catalogue `row_of` (item → row).

    `mask_seen`: items that the user chose before are neither ranked nor wanted.
    """
    found = []
    for session in sessions:
        seen = {row_of[item] for item in session.liked(spec) if item in row_of} if mask_seen else ()
        wanted = [row_of[item] for item in session.targets if item in row_of]
        unseen = [row for row in dict.fromkeys(wanted) if row not in seen]
        if unseen:
            found.append(Case(session, Target(_rows(unseen), _rows(sorted(seen)))))
    return found


def prompted(case: Case, spec: WindowSettings, text_of: Callable[[str], str]) -> Prompted:
    """The case with the request that the tracker would have made, and its prompt."""
    request = request_of(case.session, spec, text_of)
    return Prompted(request, render(request), case.target)


def _rows(rows: Iterable[int]) -> np.ndarray:
    return np.array(list(rows), np.int64)

"""Sessions → prompts with the answers that a warm start learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from models.profile.prompts import render
from models.schemas import ProfileRequest
from models.settings import WindowSettings
from streams.windows import HOUR_MS
from trainer.data.sessions import Session, request_of
from trainer.data.target_answers import WordWeights, target_answer

AFTER_MS: Final = HOUR_MS  # a profile is asked for soon after a visit, too


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the answer wanted."""

    prompt: str
    answer: str


def moments(session: Session) -> Iterator[Session]:
    """The session's moment, before a visit, and the one just after the visit before it.

    The live system asks for profiles at both: of silent users, and of those who have just
    bought, whose prompt has a line Now.
    """
    yield session
    soon = session.history[-1].timestamp + AFTER_MS
    if soon < session.as_of:
        yield replace(session, as_of=soon)


def requests(
    sessions: Iterable[Session], spec: WindowSettings, text_of: Callable[[str], str]
) -> Iterator[ProfileRequest]:
    """The requests of all moments of `sessions`, in order."""
    for session in sessions:
        for moment in moments(session):
            yield request_of(moment, spec, text_of)


def examples(requested: Iterable[ProfileRequest], weights: WordWeights) -> list[Example]:
    """Each distinct prompt of which there is something to say, with its answer, in order."""
    found: dict[str, Example] = {}
    for request in requested:
        answer = target_answer(request, weights)
        if answer is not None:
            prompt = render(request)
            found.setdefault(prompt, Example(prompt, answer))
    return list(found.values())

"""When a profile is worth a model call: pure functions of a user's marks, settings and now.

Staleness = weighted evidence since the last request / evidence worth one refresh
          + age of the last request / medium span (at most 1, only if there is new evidence).
The rules (methods §2.1), in the order in which they are looked at:

edit      the user changed the profile's rules since the last request
first     no profile was asked for yet and there is evidence for one
hard      any change, and the last request is older than the hard limit
evidence  staleness reached the threshold
silent    a window that was not empty at the last request has emptied by age alone

The budget (a token bucket) is spent on the stalest; no rule overrides it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from models.settings import TriggerSettings, WindowSettings
from streams.windows import DAY_MS, HOUR_MS

NEVER: Final = -1


class Marks(NamedTuple):
    """What of a user's state the trigger looks at. Times are epoch ms of event time."""

    evidence: float  # weighted, since the last acknowledged request
    newest: int  # event time of the newest entry of the history; NEVER if empty
    requested_as_of: int  # as_of of the last acknowledged request; NEVER if none
    edited: bool  # an edit was applied since the last request


class Due(NamedTuple):
    """A user's staleness and the rule that makes a profile due, if one does."""

    staleness: float
    rule: str | None


def staleness(marks: Marks, now: int, spec: TriggerSettings, spans: WindowSettings) -> Due:
    """How stale the user's profile is at event time `now`, and which rule fires."""
    score = marks.evidence / spec.evidence
    if marks.requested_as_of == NEVER:
        first = marks.evidence >= spec.first_evidence
        return Due(1.0 + score, "first") if first else Due(score, "edit" if marks.edited else None)
    age = max(0, now - marks.requested_as_of)
    if marks.evidence > 0:
        score += min(1.0, age / (spans.medium_days * DAY_MS))
    return Due(*_later_rule(marks, now, age, score, spec, spans))


def _later_rule(
    marks: Marks,
    now: int,
    age: int,
    score: float,
    spec: TriggerSettings,
    spans: WindowSettings,
) -> tuple[float, str | None]:
    if marks.edited:
        return score + 1.0, "edit"
    if marks.evidence > 0 and age >= spec.hard_age_days * DAY_MS:
        return score + 1.0, "hard"
    if score >= spec.threshold:
        return score, "evidence"
    emptied = next_emptying(marks, spans)
    if emptied is not None and emptied <= now:
        return max(score, spec.threshold), "silent"
    return score, None


def next_emptying(marks: Marks, spans: WindowSettings) -> int | None:
    """Event time at which the next window that the last request saw filled will be empty."""
    if marks.requested_as_of == NEVER or marks.newest == NEVER:
        return None
    ends = (
        marks.newest + int(spans.short_hours * HOUR_MS),
        marks.newest + int(spans.medium_days * DAY_MS),
        marks.newest + int(spans.long_days * DAY_MS),
    )
    return next((end for end in ends if end > marks.requested_as_of), None)


@dataclass(slots=True)
class TokenBucket:
    """A budget of model calls: `rate` per second, at most `burst` saved up. Wall seconds."""

    rate: float
    burst: float
    tokens: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> TokenBucket:
        """A bucket with all of its burst."""
        return cls(rate, burst, burst, now)

    def available(self, now: float) -> int:
        """Whole calls that may be made now."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        return int(self.tokens)

    def spend(self, calls: int) -> None:
        """Take `calls` that were made; a call made twice may push the bucket below 0."""
        self.tokens -= calls

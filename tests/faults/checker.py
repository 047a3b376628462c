"""What was found against what must be: pure functions over plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tests.faults.ledger import Entry
from tests.faults.oracle import Expected, Held

Verdict = Literal["lost", "doubled", "wrong"]
Place = tuple[str, int]  # (topic, partition)


class Finding(NamedTuple):
    """One kind of broken promise: how often, and an example."""

    verdict: Verdict
    what: str
    cases: int
    example: str

    def __str__(self) -> str:
        return f"{self.cases} {self.verdict}: {self.what}; {self.example}"


@dataclass(frozen=True)
class State:
    """One user's state as the tracker holds it."""

    held: Sequence[Held] = ()
    applied: int = -1
    edited: int = -1
    pinned: Sequence[str] = ()
    forbidden: Sequence[str] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)


def found(verdict: Verdict, what: str, cases: Sequence[object]) -> list[Finding]:
    """One finding of all cases; none if there is none."""
    return [Finding(verdict, what, len(cases), f"e.g. {cases[0]}")] if cases else []


def check_ledger(
    ledger: Iterable[Entry], topics: Mapping[Place, Mapping[int, bytes | None]], where: str
) -> list[Finding]:
    """Whatever was acknowledged stands at its offset, byte for byte."""
    lost = [
        f"{entry.topic}/{entry.partition}@{entry.offset}"
        for entry in ledger
        if topics.get((entry.topic, entry.partition), {}).get(entry.offset) != entry.value
    ]
    return found("lost", f"acknowledged, not in {where}", lost)


def check_offsets(
    logged: Mapping[Place, Sequence[int]], kafka: Mapping[Place, set[int]]
) -> list[Finding]:
    """Each offset that Kafka has given out is in the log, once."""
    missing, doubled = [], []
    for (topic, partition), offsets in kafka.items():
        times = Counter(logged.get((topic, partition), ()))
        missing += [f"{topic}/{partition}@{one}" for one in sorted(offsets - times.keys())]
        doubled += [f"{topic}/{partition}@{one}" for one, n in times.items() if n > 1]
    return found("lost", "offset not in the event log", missing) + found(
        "doubled", "offset in the event log twice", doubled
    )


def check_states(expected: Mapping[str, Expected], states: Mapping[str, State]) -> list[Finding]:
    """Every user's state is what the oracle says."""
    lost, doubled, wrong = [], [], []
    for user, must in expected.items():
        state = states.get(user, State())
        ids = Counter(entry[1] for entry in state.held)
        gone = {entry[1] for entry in must.held} - ids.keys()
        if gone:
            lost.append(f"{user}: {len(gone)} events, {min(gone)}")
        if any(times > 1 for times in ids.values()):
            doubled.append(f"{user}: {ids.most_common(1)}")
        if difference := _difference(must, state):
            wrong.append(f"{user}: {difference}")
    return (
        found("lost", "users without events that Kafka holds", lost)
        + found("doubled", "users with an event twice", doubled)
        + found("wrong", "users whose state is another than the oracle's", wrong)
    )


def _difference(must: Expected, state: State) -> str:
    pairs = {
        "history": (must.held, list(state.held)),
        "applied offset": (must.applied, state.applied),
        "edits": (must.edited, state.edited),
        "pinned": (sorted(must.pinned), sorted(state.pinned)),
        "forbidden": (sorted(must.forbidden), sorted(state.forbidden)),
        "replaced": (must.replaced, dict(state.replaced)),
    }
    for name, (wanted, got) in pairs.items():
        if wanted != got:
            return f"{name} is {_short(got)}, not {_short(wanted)}"
    return ""


def _short(value: object) -> str:
    return f"{len(value)} entries" if isinstance(value, list) and len(value) > 3 else repr(value)


class Sequenced:
    """Messages of one topic in Kafka's order: what is new for a user never looks back.

    A message that is sent again (the same id) is no news, as for every reader.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._ids: set[str] = set()
        self._last: dict[str, int] = {}
        self._back: list[str] = []
        self.repeated = 0

    def take(self, user: str, identity: str, applied: int, where: str) -> None:
        """The next message."""
        if identity in self._ids:
            self.repeated += 1
            return
        self._ids.add(identity)
        last = self._last.get(user, -1)
        if applied < last:
            self._back.append(f"{where} of {user}: {last} → {applied}")
        self._last[user] = max(last, applied)

    @property
    def last(self) -> Mapping[str, int]:
        """User → the greatest applied offset told so far."""
        return self._last

    def findings(self) -> list[Finding]:
        """What went back since it was last asked."""
        back, self._back = self._back, []
        return found("wrong", f"{self._what} whose applied offset goes back", back)


def check_served(expected: Mapping[str, Expected], last: Mapping[str, int]) -> list[Finding]:
    """Every user's newest list takes into account whatever has come in."""
    behind = [
        f"{user}: list for {last.get(user, -1)}, state at {must.applied}"
        for user, must in expected.items()
        if must.held and last.get(user, -1) != must.applied
    ]
    return found("wrong", "users whose newest list is not of their state", behind)


def total(findings: Iterable[Finding], verdict: Verdict) -> int:
    """How many cases of this verdict."""
    return sum(one.cases for one in findings if one.verdict == verdict)

"""Injects the faults of a schedule, one group after the other, and judges after each group."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from models.errors import PalateError
from streams.event_log import SegmentLog
from streams.parity import check_parity
from tests.faults.checker import (
    Finding,
    check_ledger,
    check_offsets,
    check_served,
    check_states,
    total,
)
from tests.faults.evidence import logged_offsets, logged_values, states
from tests.faults.registry import Fault, Skipped
from tests.faults.system import System
from tests.patience import machine_clock

GROUPS_OF_A_STACK = 12  # then a new one, so that a check of the whole log stays short
FORGOTTEN_WITHIN_S = 60.0
BETWEEN_S = 1.0  # events flow for so long between two faults of a group
WARM_UP_S = 6.0  # of events before the first fault of a stack
CONVERGED_WITHIN_S = 240.0  # by a clock that slows down with the machine, as the next
UNCHANGED_S = 30.0  # what has been wrong for so long, with all roles ready, stays wrong
POLL_S = 0.5

Say = Callable[[str], None]


@dataclass
class Outcome:
    """A group of faults and what was found after it."""

    kinds: list[str]  # those that came to be tried: after a failure the rest of a group is not
    skipped: dict[str, str] = field(default_factory=dict)  # kind → why
    findings: list[Finding] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # roles that ended by themselves
    converged_s: float = 0.0  # from the last heal until nothing was missing
    took_s: float = 0.0
    acknowledged: int = 0  # records, since the stack was made

    def count(self, verdict: str) -> int:
        """Cases of this verdict."""
        return total(self.findings, verdict)  # type: ignore[arg-type]

    @property
    def injected(self) -> list[str]:
        """Kinds that were not skipped."""
        return [kind for kind in self.kinds if kind not in self.skipped]


class Driver:
    """Holds the stack; makes a new one when one has failed, so that no fault inherits a failure."""

    def __init__(self, seed: int, keep: Path | None, say: Say) -> None:
        self._seed, self._keep, self._say = seed, keep, say
        self._chance = Random(seed)
        self.outcomes: list[Outcome] = []
        self._stacks = self._groups = 0
        self._system: System | None = None
        self._exit = ExitStack()
        self._healed = 0.0  # when the last fault was, by the monotonic clock

    def run(self, groups: Sequence[Sequence[Fault]]) -> list[Outcome]:
        """One outcome a group; whatever happens, nothing is left running."""
        try:
            for number, group in enumerate(groups, 1):
                outcome = self._group(group)
                self.outcomes.append(outcome)
                self._say(f"{number}/{len(groups)} {line(outcome)}")
        finally:
            self._close()
        return self.outcomes

    def _group(self, group: Sequence[Fault]) -> Outcome:
        began = time.monotonic()
        outcome = Outcome([])
        try:
            system = self._ready_system()
            self._inject(system, group, outcome)
            self._judge(system, outcome)
        except Exception as error:  # noqa: BLE001 (whatever it is, the run goes on with a new stack)
            outcome.findings.append(Finding("wrong", "the stack is up again", 1, essence(error)))
        if self._system is not None:
            outcome.findings += self._system.findings
            outcome.ended = self._system.ended[:]
            self._system.findings.clear()
            self._system.ended.clear()
        outcome.took_s = time.monotonic() - began
        self._groups += 1
        if outcome.findings:
            self._close("-".join([f"{self._stacks:03d}", *outcome.kinds]))
        elif self._groups % GROUPS_OF_A_STACK == 0:
            self._close()
        return outcome

    def _ready_system(self) -> System:
        if self._system is None:
            self._stacks += 1
            system = System(self._seed * 1_000 + self._stacks)
            self._exit.callback(system.remove)
            self._system = self._exit.enter_context(system)
            system.flow.start()
            time.sleep(WARM_UP_S)
        return self._system

    def _close(self, failed: str = "") -> None:
        if self._system is not None and failed and self._keep:
            self._system.keep(self._keep / failed)
        self._system = None
        self._exit.close()

    def _inject(self, system: System, group: Sequence[Fault], outcome: Outcome) -> None:
        system.flow.start()
        for kind in group:
            time.sleep(BETWEEN_S)
            self._say(f"    {kind.name}")
            outcome.kinds.append(kind.name)
            try:
                for seconds in kind.inject(system, self._chance):
                    time.sleep(seconds)
            except Skipped as why:
                outcome.skipped[kind.name] = str(why)
            system.resume_all()
            self._healed = time.monotonic()
            system.up()

    def _judge(self, system: System, outcome: Outcome) -> None:
        """Each user once more, so that the state as it is now is seen; then wait and compare."""
        system.flow.pause()
        system.flow.send(system.traffic.round())
        outcome.findings += self._settled(system)
        outcome.converged_s = time.monotonic() - self._healed
        outcome.acknowledged = len(system.flow.ledger.snapshot())
        if not outcome.findings:
            self._forget_one(system)

    def _forget_one(self, system: System) -> None:
        """In the quiet: a user's wish, whose order among the events is then certain."""
        user = self._chance.choice(system.traffic.users)
        system.flow.send([system.traffic.forget(user)])

        def forgotten() -> bool:
            system.loop.call(system.mirror.catch_up())
            return not check_states(system.mirror.oracle.states, states(system.mirror.changelog))

        system.require(
            system.waited(forgotten, FORGOTTEN_WITHIN_S),
            "a user is forgotten in the quiet, and nobody else's state moves",
            user,
        )

    def _settled(self, system: System) -> list[Finding]:
        """What is still found when nothing changes any more."""
        began = since = machine_clock()
        before: tuple[object, ...] = ()
        final: list[Finding] = []
        while True:
            unready = self._unready(system)
            found = compare(system)
            behind = system.loop.call(system.mirror.behind(system.settings.kafka.prefix))
            final += system.mirror.ordered()
            now = machine_clock()
            if not found and not unready and not behind:
                return final + parity(system)
            if (found, behind) != before or unready:
                before, since = (found, behind), now
            if now - since > UNCHANGED_S or now - began > CONVERGED_WITHIN_S:
                stuck = [f"{unready} {behind}"] if unready or behind else []
                return [*final, *found, *_late(stuck), *parity(system)]
            time.sleep(POLL_S)

    def _unready(self, system: System) -> str:
        """Which roles are not ready; an operator starts one that has ended."""
        try:
            return str(system.unready() or "")
        except PalateError:
            system.up()
            return "a role had ended"


def _late(stuck: list[str]) -> list[Finding]:
    return [Finding("wrong", "all are ready and nobody is behind", 1, one) for one in stuck]


def compare(system: System) -> list[Finding]:
    """All that can be said of the state as it is now."""
    mirror, log_dir = system.mirror, system.settings.log_dir
    system.loop.call(mirror.catch_up())
    ledger = system.flow.ledger.snapshot()
    in_log = [one for one in ledger if one.topic == "interactions"]
    must = mirror.oracle.states
    return [
        *check_ledger(ledger, mirror.values, "Kafka"),
        *check_ledger(in_log, logged_values(log_dir, "interactions"), "the event log"),
        *check_offsets(logged_offsets(log_dir), mirror.offsets),
        *check_states(must, states(mirror.changelog)),
        *check_served(must, mirror.lists.last),
        *mirror.unanswered(),
    ]


def parity(system: System) -> list[Finding]:
    """`palate check parity`."""
    try:
        report = check_parity(SegmentLog(system.settings.log_dir), system.settings)
    except PalateError as error:
        return [Finding("wrong", "parity can be checked", 1, str(error))]
    if not report.mismatch_count:
        return []
    example = str(report.mismatches[0])[:200]
    return [Finding("wrong", "parity mismatches", report.mismatch_count, example)]


def line(outcome: Outcome) -> str:
    """One line for whoever watches."""
    kinds = ", ".join(outcome.kinds)
    skipped = f", skipped {outcome.skipped}" if outcome.skipped else ""
    told = "".join(f"\n      {one}" for one in outcome.findings)
    ended = "".join(f"\n      ended by itself: {one}" for one in outcome.ended)
    return (
        f"{kinds}: {'FAILED' if outcome.findings else 'held'} after {outcome.took_s:.0f} s, "
        f"converged in {outcome.converged_s:.0f} s{skipped}{told}{ended}"
    )


def essence(error: Exception) -> str:
    """A role's last log lines come with much traceback: the first and the last line of it."""
    lines = [one.strip() for one in str(error).splitlines() if not one.startswith("Mend the cause")]
    told = [repr(error)] if not lines else [lines[0], *lines[-1:]] if len(lines) > 1 else lines
    return " … ".join(one[:250] for one in told)

"""The kinds of faults. A kind is a generator: inject, yield, heal.

    @fault("nothing is lost, whoever is asleep")
    def recorder_suspended(system: System, chance: Random) -> Faulty:
        system.suspend("recorder")
        yield 10.0
        system.resume("recorder")

It yields the seconds for which events go on flowing before it is healed. What it has promised
beyond the general checks (nothing lost, doubled or wrong) it asks itself, by `system.require`.
After it the driver calls what `palate up` does, so a role that was killed need not be started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from random import Random
from typing import TYPE_CHECKING

from models.errors import SettingsError

if TYPE_CHECKING:
    from tests.faults.system import System

Faulty = Iterator[float]
Inject = Callable[["System", Random], Faulty]

KINDS: dict[str, Fault] = {}


class Skipped(Exception):
    """This fault cannot be injected here; says why."""


@dataclass(frozen=True)
class Fault:
    """One kind."""

    name: str
    promise: str
    inject: Inject
    alone: bool  # its check is not shared with other faults
    weight: int  # how often it is drawn, against the others' 1


def fault(promise: str, alone: bool = False, weight: int = 1) -> Callable[[Inject], Inject]:
    """Register a kind under its function's name."""

    def register(inject: Inject) -> Inject:
        name = inject.__name__.replace("_", "-")
        KINDS[name] = Fault(name, promise, inject, alone, weight)
        return inject

    return register


def chosen(patterns: Sequence[str]) -> list[Fault]:
    """The kinds whose names match one of `patterns` (shell style); all if there is none."""
    import tests.faults.kinds  # noqa: F401  (registers them)

    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in KINDS):
            raise SettingsError(
                f"no kind of fault is called {pattern}; there are: {', '.join(KINDS)}"
            )
    wanted = patterns or ["*"]
    return [kind for kind in KINDS.values() if any(fnmatch(kind.name, one) for one in wanted)]

"""Systems by name; a system's module is imported when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final, NamedTuple

from models.errors import TrainingError
from trainer.evaluation.context import Context
from trainer.evaluation.systems import System


class SystemEntry(NamedTuple):
    """One system: `function` of `module` makes it from a Context."""

    name: str
    module: str
    function: str
    default: bool = True  # in the table unless systems are named


_BASELINES: Final = "trainer.baselines.builders"
_LEARNED: Final = "trainer.learning.builders"
_PROFILES: Final = "trainer.learning.profile_builders"
_PROFILE: Final = re.compile(r"profile(:[^+]+)?(\+shuffled|\+sasrec)?")
ENTRIES: Final = (
    SystemEntry("random", _BASELINES, "random_order"),
    SystemEntry("popularity", _BASELINES, "popularity"),
    SystemEntry("recent-popularity", _BASELINES, "recent_popularity"),
    SystemEntry("had-before", _BASELINES, "had_before"),
    SystemEntry("last-item-text", _BASELINES, "last_item_text"),
    SystemEntry("history-text", _BASELINES, "history_text"),
    SystemEntry("cooccurrence", _BASELINES, "cooccurrence"),
    SystemEntry("star", _BASELINES, "star"),
    SystemEntry("star-had-before", _BASELINES, "star_had_before"),
    SystemEntry("noprofile", _LEARNED, "noprofile", False),
    SystemEntry("noprofile-shuffled", _LEARNED, "noprofile_shuffled", False),
    SystemEntry("noprofile-cl", _LEARNED, "noprofile_cl", False),
    SystemEntry("extractive-profile", _LEARNED, "extractive_profile", False),
    SystemEntry("extractive-profile-shuffled", _LEARNED, "extractive_profile_shuffled", False),
    SystemEntry("sasrec", _LEARNED, "sasrec", False),
    SystemEntry("star-sasrec", _LEARNED, "star_sasrec", False),
    SystemEntry("noprofile-cl-sasrec", _LEARNED, "noprofile_cl_sasrec", False),
)


def names() -> tuple[str, ...]:
    """All systems there are."""
    return tuple(entry.name for entry in ENTRIES)


def every() -> tuple[str, ...]:
    """All systems that need nothing but the data: also those that train and write first."""
    return (*names(), "profile", "profile+shuffled", "profile+sasrec")


def writes_profiles(name: str) -> bool:
    """Whether a language model has to write for every session that the system ranks."""
    return _PROFILE.fullmatch(name) is not None


def build_systems(chosen: Sequence[str], context: Context) -> list[System]:
    """The named systems (default: those of the plain table), in the table's order.

    Behind them those of `profile[:FOLDER][+shuffled|+sasrec]`, as given (profile_builders).
    Raises TrainingError for a name that there is not.
    """
    profiles = list(filter(writes_profiles, chosen))
    unknown = sorted(set(chosen) - set(names()) - set(profiles))
    if unknown:
        raise TrainingError(
            f"no system is called {', '.join(unknown)}; there are {', '.join(names())} "
            "and profile[:FOLDER][+shuffled|+sasrec]"
        )
    wanted = [e for e in ENTRIES if (e.name in chosen if chosen else e.default)]
    systems = [_builder(entry)(context) for entry in wanted]
    return systems + [_profile_builder()(name, context) for name in profiles]


def _profile_builder() -> Callable[[str, Context], System]:
    found: Callable[[str, Context], System] = import_module(_PROFILES).profile_system
    return found


def _builder(entry: SystemEntry) -> Callable[[Context], System]:
    found: Callable[[Context], System] = getattr(import_module(entry.module), entry.function)
    return found

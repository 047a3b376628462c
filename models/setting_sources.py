"""Environment variables beside the settings' own: the short form, and names that mean nothing."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

log = logging.getLogger(__name__)

PREFIX: Final = "PALATE_"
BESIDE: Final = frozenset({"PALATE_CONFIG", "PALATE_WORKER"})  # read, but no settings
# Kubernetes gives a pod such variables for every service; one of ours may be called palate-….
_OF_KUBERNETES: Final = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)


class ShortForms(PydanticBaseSettingsSource):
    """`KAFKA_BOOTSTRAP=host:port`: a cluster that is not ours to start.

    Weaker than the variable PALATE_KAFKA__BOOTSTRAP, stronger than the file.
    """

    def __init__(
        self, settings_cls: type[BaseSettings], environment: PydanticBaseSettingsSource
    ) -> None:
        super().__init__(settings_cls)
        self._environment = environment

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not asked: `__call__` gives whole groups."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        """The group `kafka`, as far as the short form says something about it."""
        short = os.environ.get("KAFKA_BOOTSTRAP")
        if not short:
            return {}
        stronger = _bootstrap(self.current_state)
        if stronger in (None, short):
            return {"kafka": {"bootstrap": short, "embedded": False}}
        if _bootstrap(self._environment()) == stronger:
            log.warning(
                "KAFKA_BOOTSTRAP=%s is not used: PALATE_KAFKA__BOOTSTRAP=%s is stronger; "
                "unset one of them",
                *(short, stronger),
            )
        return {}


def _bootstrap(values: Mapping[str, Any]) -> str | None:
    kafka = values.get("kafka")
    return kafka.get("bootstrap") if isinstance(kafka, dict) else None


def unknown_names(environment: Iterable[str], known: Collection[str]) -> list[str]:
    """A line for each PALATE_… variable that belongs to none of the settings or groups `known`."""
    ours = (name.upper() for name in environment if name.upper().startswith(PREFIX))
    return [
        _unknown(name, known)
        for name in sorted(ours)
        if name not in BESIDE
        and name.removeprefix(PREFIX).partition("__")[0].lower() not in known
        and not _OF_KUBERNETES.search(name)
    ]


def _unknown(name: str, known: Collection[str]) -> str:
    first, separator, rest = name.removeprefix(PREFIX).partition("__")
    near = difflib.get_close_matches(first.lower(), known, n=1)
    meant = f"; did you mean {PREFIX}{near[0].upper()}{separator}{rest}?" if near else ""
    return f"{name}: no such setting{meant}"

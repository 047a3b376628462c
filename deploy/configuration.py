"""docs/configuration.md and docs/configuration-research.md, made from the Settings model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from models.settings import Settings

SettingName = tuple[str, ...]  # or of a group of them: ("train", "rlso", "rounds")

# Of the groups within `train`, what belongs to running a training: when a run is worth it, which
# stages it has, where its rollouts are made, and how sure the gate must be.
OPERATED: Final = frozenset(
    {
        "train.sessions.min_new_events",
        "train.warm_start.steps",
        "train.contrastive.steps",
        "train.rlso.rounds",
        "train.rlso.vllm_url",
        "train.gate.margin",
        "train.gate.anchor_margin",
        "train.gate.users",
        "train.gate.min_users",
    }
)

OPERATOR_HEAD: Final = """# Configuration

The settings of whoever runs Palate, with their environment variables and defaults. Those of
learning and evaluation that only research changes are on
[a page of their own](configuration-research.md). Sources, strongest first: the
environment, then the short form `KAFKA_BOOTSTRAP`, then `palate.toml` in the working directory
(or the file that `PALATE_CONFIG` names), then the defaults. In the file the groups are tables:

```toml
data_dir = "/srv/palate"

[kafka]
bootstrap = "kafka-1:9092,kafka-2:9092"
embedded = false
partitions = 12
```

`KAFKA_BOOTSTRAP=host:port` is short for `PALATE_KAFKA__BOOTSTRAP=host:port` with
`PALATE_KAFKA__EMBEDDED=false`; where `PALATE_KAFKA__BOOTSTRAP` names another cluster, that one is
used, with a warning. A wrong setting, and a variable `PALATE_…` that is none, stops a command with
its name and exit code 2.

This page is made by `make docs`.
"""

RESEARCH_HEAD: Final = """# Configuration for research

How `palate train` learns and how `palate evaluate` compares. Nobody needs these to run Palate, and
a change calls for a comparison of its own: what was tried so far is under [results](results). They
are set as [all others](configuration.md).

This page is made by `make docs`."""


def operator_page() -> str:
    """docs/configuration.md, as Markdown."""
    return _page(OPERATOR_HEAD, lambda parts: not is_research(parts))


def research_page() -> str:
    """docs/configuration-research.md, as Markdown."""
    return _page(RESEARCH_HEAD, is_research)


def is_research(parts: SettingName) -> bool:
    """Whether a setting is for research: it is in a group within `train`, and not in OPERATED."""
    return parts[0] == "train" and len(parts) > 2 and ".".join(parts) not in OPERATED


def _page(head: str, wanted: Callable[[SettingName], bool]) -> str:
    return "\n".join([head, *_group(Settings, (), wanted)]) + "\n"


def _group(
    group: type[BaseModel], parts: SettingName, wanted: Callable[[SettingName], bool]
) -> Iterator[str]:
    """The table of a group's own settings, if there are any, then the groups in it."""
    fields = group.model_fields
    own = {
        (*parts, name): field
        for name, field in fields.items()
        if not _is_group(field) and wanted((*parts, name))
    }
    if own:
        if parts:
            yield f"\n## {'.'.join(parts)}\n\n{group.__doc__}\n"
        yield from _table(own)
    for name, field in fields.items():
        if _is_group(field):
            inner: type[BaseModel] = field.annotation  # type: ignore[assignment]
            yield from _group(inner, (*parts, name), wanted)


def _table(fields: dict[SettingName, FieldInfo]) -> Iterator[str]:
    yield "| variable | type | default | meaning |"
    yield "|---|---|---|---|"
    for parts, field in fields.items():
        variable = "PALATE_" + "__".join(parts).upper()
        cells = (variable, _type(field.annotation), _default(field))
        marked = " | ".join(f"`{cell}`" if cell else "" for cell in cells)
        yield f"| {marked} | {field.description} |"


def _is_group(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _type(annotation: Any) -> str:
    if annotation is SecretStr:
        return "text (hidden)"
    arguments = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) is dict:
        return "JSON object"
    if get_origin(annotation) is tuple:
        return "JSON list"
    if arguments and all(isinstance(a, str) for a in arguments):
        return " ".join(arguments)
    if arguments:
        return _type(arguments[0])
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true false"}.get(
        annotation.__name__, annotation.__name__.lower()
    )


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, dict | bool | tuple) else str(value)

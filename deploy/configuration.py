"""docs/configuration.md, made from the Settings model: `python -m deploy.configuration`.

tests/deploy/test_configuration.py holds the committed page to what this prints.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from models.settings import Settings

HEAD = """# Configuration

Every setting, its environment variable and its default. Sources, strongest first: the
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

This page is made by `python -m deploy.configuration > docs/configuration.md`.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *_group(Settings)]) + "\n"


def _group(group: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    """The table of a group's own settings, then the groups in it, each under its heading."""
    fields = group.model_fields
    yield from _table(
        {name: field for name, field in fields.items() if not _is_group(field)},
        "PALATE_" + "".join(f"{part.upper()}__" for part in path),
    )
    for name, field in fields.items():
        if _is_group(field):
            inner: type[BaseModel] = field.annotation  # type: ignore[assignment]
            yield f"\n## {'.'.join([*path, name])}\n\n{inner.__doc__}\n"
            yield from _group(inner, (*path, name))


def _table(fields: dict[str, FieldInfo], prefix: str) -> Iterator[str]:
    yield "| variable | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in fields.items():
        cells = (prefix + name.upper(), _type(field.annotation), _default(field))
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


if __name__ == "__main__":
    sys.stdout.write(page())

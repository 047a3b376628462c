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
environment, then `palate.toml` in the working directory (or the file that `PALATE_CONFIG`
names), then the defaults. In the file the groups are tables:

```toml
data_dir = "/srv/palate"

[kafka]
bootstrap = "kafka-1:9092,kafka-2:9092"
embedded = false
partitions = 12
```

`KAFKA_BOOTSTRAP=host:port` is short for `PALATE_KAFKA__BOOTSTRAP=host:port` with
`PALATE_KAFKA__EMBEDDED=false`. A wrong setting stops a command with its name and exit code 2.

This page is made by `python -m deploy.configuration > docs/configuration.md`.
"""


def page() -> str:
    """The whole page as Markdown."""
    plain = {n: f for n, f in Settings.model_fields.items() if not _is_group(f)}
    groups = {n: f for n, f in Settings.model_fields.items() if _is_group(f)}
    parts = [HEAD, *_table(plain, "PALATE_")]
    for name, field in groups.items():
        group: type[BaseModel] = field.annotation  # type: ignore[assignment]
        parts += [f"\n## {name}\n\n{group.__doc__}\n"]
        parts += _table(group.model_fields, f"PALATE_{name.upper()}__")
    return "\n".join(parts) + "\n"


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
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


if __name__ == "__main__":
    sys.stdout.write(page())

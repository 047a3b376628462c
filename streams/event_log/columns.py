"""Columns of the event log: the same raw ones for every topic, and the flat fields of its schema.

Typed columns hold a value only where `status` is 'ok', so a query over them sees each accepted
message once; rows of any other status keep their raw columns alone. Nested fields are read from
`value` by the views.
"""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import pyarrow as pa

from models.schemas import TOPIC_SCHEMAS

OK: Final = "ok"
INVALID: Final = "invalid"
FORWARDED: Final = "forwarded"
TOMBSTONE: Final = "tombstone"

LOGGED_TOPICS: Final = tuple(TOPIC_SCHEMAS)
VIEW_OF: Final = {topic: topic for topic in LOGGED_TOPICS} | {
    "profile-requests": "requests",
    "profile-edits": "edits",
}

RAW_FIELDS: Final = (
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("partition", pa.int32(), nullable=False),
    pa.field("kafka_time", pa.int64()),  # epoch ms
    pa.field("key", pa.binary()),
    pa.field("value", pa.binary()),  # whole; of invalid values over 256 KB the beginning
    pa.field("size", pa.int64()),  # bytes of the whole value
    pa.field("sha256", pa.string()),  # hex, of the whole value, where `value` is cut
    pa.field("headers", pa.string()),  # JSON [[name, value], …]; null: none
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)
RAW_NAMES: Final = tuple(field.name for field in RAW_FIELDS)

# Fields whose name a raw column has; None: it says the same as the raw one.
_RENAMED: Final = {
    ("releases", "status"): "step",
    ("releases", "detail"): "step_detail",
    ("profile-requests", "partition"): None,
}

_SCALARS: Final = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


def arrow_type(annotation: Any) -> pa.DataType | None:
    """Arrow type of a schema field; None for nested ones."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return arrow_type(args[0])
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        return pa.list_(pa.string()) if arrow_type(args[0]) == pa.string() else None
    if args and NoneType in args:
        return arrow_type(next(arg for arg in args if arg is not NoneType))
    if isinstance(annotation, type):
        found = (kind for base, kind in _SCALARS.items() if issubclass(annotation, base))
        return next(found, None)
    return None


def _columns_of(topic: str) -> dict[str, tuple[str, pa.DataType]]:
    named = {
        name: (_RENAMED.get((topic, name), name), arrow_type(field.annotation))
        for name, field in TOPIC_SCHEMAS[topic].model_fields.items()
    }
    return {name: (column, kind) for name, (column, kind) in named.items() if column and kind}


TYPED: Final = {topic: _columns_of(topic) for topic in LOGGED_TOPICS}
"""Per topic: schema field → (column, Arrow type), flat fields only."""

NESTED: Final = {
    topic: tuple(
        name for name, field in schema.model_fields.items() if arrow_type(field.annotation) is None
    )
    for topic, schema in TOPIC_SCHEMAS.items()
}
"""Per topic: schema fields that the views read from `value` as JSON."""

SCHEMAS: Final = {
    topic: pa.schema([*RAW_FIELDS, *(pa.field(*column) for column in TYPED[topic].values())])
    for topic in LOGGED_TOPICS
}
"""Per topic: the schema of its segments."""

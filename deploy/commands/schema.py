"""`palate schema`; docs/schemas/ holds the same documents."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer

from deploy.console import not_found
from models.schemas import TOPIC_SCHEMAS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(
    topic: Annotated[
        str | None, typer.Argument(help="A topic; without one they are listed.")
    ] = None,
) -> None:
    """Print the JSON Schema of a topic's values.

    Example: palate schema interactions
    """
    if topic is None:
        sys.stdout.write("\n".join(TOPIC_SCHEMAS) + "\n")
        return
    if topic not in TOPIC_SCHEMAS:
        raise not_found(f"no schema for topic {topic!r}; there is: {', '.join(TOPIC_SCHEMAS)}")
    sys.stdout.write(schema_text(topic))


def schema_text(topic: str) -> str:
    """The JSON Schema document of a topic, as docs/schemas/ holds it."""
    model = TOPIC_SCHEMAS[topic]
    document: dict[str, Any] = {"$schema": DIALECT, **model.model_json_schema()}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"

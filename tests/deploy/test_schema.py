"""`palate schema`; tests/deploy/test_generated_docs.py holds docs/schemas to it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from deploy import cli
from deploy.commands.schema import schema_text
from models.schemas import TOPIC_SCHEMAS


@pytest.mark.parametrize("topic", TOPIC_SCHEMAS)
def test_every_field_is_described(topic: str) -> None:
    schema = json.loads(schema_text(topic))
    objects = [schema, *(d for d in schema.get("$defs", {}).values() if "properties" in d)]

    bare = [name for o in objects for name, f in o["properties"].items() if "description" not in f]

    assert bare == []


def test_the_command_prints_the_schema_or_lists_the_topics() -> None:
    runner = CliRunner()

    assert runner.invoke(cli.app, ["schema", "items"]).stdout == schema_text("items")
    assert runner.invoke(cli.app, ["schema"]).stdout.split() == list(TOPIC_SCHEMAS)


def test_an_unknown_topic_is_exit_code_3() -> None:
    result = CliRunner().invoke(cli.app, ["schema", "gossip"])

    assert result.exit_code == 3
    assert "interactions, items" in result.stderr

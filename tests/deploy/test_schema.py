"""The JSON Schemas in the docs are those that the code enforces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy import cli
from deploy.commands.schema import schema_text, write_schemas
from models.schemas import TOPIC_SCHEMAS

DOCS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.mark.parametrize("topic", TOPIC_SCHEMAS)
def test_the_documented_schema_is_the_real_one(topic: str) -> None:
    """If this fails: python -m deploy.commands.schema writes docs/schemas anew."""
    assert (DOCS / f"{topic}.json").read_text() == schema_text(topic)


def test_no_other_schema_is_documented(tmp_path: Path) -> None:
    assert {path.name for path in DOCS.iterdir()} == {p.name for p in write_schemas(tmp_path)}


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

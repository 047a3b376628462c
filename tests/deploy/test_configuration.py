"""Which setting is on which page, and how it is told there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from deploy.configuration import OPERATED, operator_page, research_page
from models.settings import Settings


def names(group: type[BaseModel], *parts: str) -> Iterator[tuple[str, ...]]:
    for name, field in group.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from names(inner, *parts, name)
        else:
            yield (*parts, name)


def variables(page: str) -> set[str]:
    rows = re.findall(r"^\| `(PALATE_\w+)` \|.*\| (.+) \|$", page, re.MULTILINE)
    assert all(meaning != "None" for _, meaning in rows)
    assert len(dict(rows)) == len(rows)
    return set(dict(rows))


def variable(parts: tuple[str, ...]) -> str:
    return "PALATE_" + "__".join(parts).upper()


def test_every_setting_is_on_one_page_with_a_meaning() -> None:
    run, studied = variables(operator_page()), variables(research_page())
    assert run | studied == {variable(parts) for parts in names(Settings)}
    assert run & studied == set()


def test_research_settings_are_those_in_the_groups_of_train_but_a_named_few() -> None:
    inner = {parts for parts in names(Settings) if parts[0] == "train" and len(parts) > 2}
    operated = {parts for parts in inner if ".".join(parts) in OPERATED}
    assert {".".join(parts) for parts in operated} == OPERATED
    assert variables(research_page()) == {variable(parts) for parts in inner - operated}


def test_no_default_reveals_a_secret_or_a_path_of_this_machine() -> None:
    for page in (operator_page(), research_page()):
        assert str(Path.home()) not in page
        assert "SecretStr" not in page

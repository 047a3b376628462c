"""docs/configuration.md says what the Settings model says."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from deploy.configuration import page
from models.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_committed_page_is_the_one_made_from_the_settings() -> None:
    assert PAGE.read_text() == page(), "run: python -m deploy.configuration > docs/configuration.md"


def test_every_setting_has_a_row_with_a_meaning() -> None:
    rows = re.findall(r"^\| `(PALATE_\w+)` \|.*\| (.+) \|$", page(), re.MULTILINE)
    assert len(rows) == number_of_settings(Settings)
    assert all(meaning != "None" for _, meaning in rows)


def number_of_settings(group: type[BaseModel]) -> int:
    inner = [field.annotation for field in group.model_fields.values()]
    return sum(
        number_of_settings(one) if isinstance(one, type) and issubclass(one, BaseModel) else 1
        for one in inner
    )


def test_no_default_reveals_a_secret_or_a_path_of_this_machine() -> None:
    assert str(Path.home()) not in page()
    assert "SecretStr" not in page()

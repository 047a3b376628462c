"""docs/configuration.md says what the Settings model says."""

from __future__ import annotations

import re
from pathlib import Path

from deploy.configuration import page
from models.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_committed_page_is_the_one_made_from_the_settings() -> None:
    assert PAGE.read_text() == page(), "run: python -m deploy.configuration > docs/configuration.md"


def test_every_setting_has_a_row_with_a_meaning() -> None:
    rows = re.findall(r"^\| `(PALATE_\w+)` \|.*\| (.+) \|$", page(), re.MULTILINE)
    groups = [
        f.annotation
        for f in Settings.model_fields.values()
        if hasattr(f.annotation, "model_fields")
    ]
    plain = len(Settings.model_fields) - len(groups)
    assert len(rows) == plain + sum(len(group.model_fields) for group in groups)  # type: ignore[union-attr]
    assert all(meaning != "None" for _, meaning in rows)


def test_no_default_reveals_a_secret_or_a_path_of_this_machine() -> None:
    assert str(Path.home()) not in page()
    assert "SecretStr" not in page()

"""The committed pages are those that the code makes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.generated_docs import pages, write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", pages(ROOT))
def test_a_committed_page_is_what_the_code_makes(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == pages(ROOT)[path], "run: make docs"


def test_a_topic_that_is_gone_leaves_no_schema() -> None:
    committed = {f"docs/schemas/{path.name}" for path in (ROOT / "docs/schemas").iterdir()}
    assert committed == {path for path in pages(ROOT) if path.startswith("docs/schemas/")}


def test_pages_that_differ_are_written_and_named(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs/benchmarks", tmp_path / "docs/benchmarks")
    expected = pages(tmp_path)
    assert set(write(tmp_path)) == set(expected) - {"docs/benchmarks/README.md"}
    (tmp_path / "docs/metrics.md").write_text("# Old\n")
    assert write(tmp_path) == ["docs/metrics.md"]
    assert (tmp_path / "docs/metrics.md").read_text() == expected["docs/metrics.md"]

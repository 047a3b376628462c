"""The pages that are made from the code: `make docs` writes them, tests hold them to it."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy import configuration, metrics_page
from deploy.bench import report
from deploy.commands.schema import schema_text
from models.release.starter import read_starter
from models.schemas import TOPIC_SCHEMAS
from trainer.starter.card import model_card


def pages(root: Path) -> dict[str, str]:
    """Path below the repository's `root` → the page's text."""
    return {
        "docs/configuration.md": configuration.operator_page(),
        "docs/configuration-research.md": configuration.research_page(),
        "docs/metrics.md": metrics_page.page(),
        **{f"docs/schemas/{topic}.json": schema_text(topic) for topic in TOPIC_SCHEMAS},
        "docs/benchmarks/README.md": report.page(report.newest(root / "docs/benchmarks")),
        "models/starter/README.md": model_card(read_starter().release),
    }


def write(root: Path) -> list[str]:
    """Write the pages that are not as they should be; their paths."""
    changed = [
        (path, text)
        for path, text in pages(root).items()
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text
    ]
    for path, text in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return [path for path, _ in changed]


if __name__ == "__main__":
    written = write(Path(__file__).parents[1])
    sys.stdout.write("".join(f"wrote {path}\n" for path in written) or "all pages are up to date\n")

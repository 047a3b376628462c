"""The README's shell lines, for the tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def shell_lines(heading: str = "") -> list[str]:
    """Lines of all shell blocks, or of the first one under a heading."""
    text = README
    if heading:
        _, found, text = README.partition(f"\n{heading}\n")
        assert found, f"the README has no heading {heading}"
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    chosen = blocks[:1] if heading else blocks
    return [line for block in chosen for line in block.splitlines() if line.strip()]

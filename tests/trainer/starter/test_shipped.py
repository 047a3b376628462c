"""What lies in models/starter and docs/results is whole, portable and says the same."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

from models.release.files import changed
from models.release.starter import FOLDER, fitting_starter, read_starter
from models.release.store import sealed
from models.settings import Settings
from trainer.starter.label_agreement import STATEMENTS, agreement, read_labels

RESULTS = Path(__file__).parents[3] / "docs" / "results"
MOST_BYTES = 8_000_000


def header() -> dict[str, dict[str, object]]:
    """Names, types and shapes of the adapter's tensors, read without torch."""
    content = (FOLDER / "adapter_model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    found: dict[str, dict[str, object]] = json.loads(content[8 : 8 + length])
    found.pop("__metadata__")
    return found


def test_it_fits_the_default_settings() -> None:
    starter = fitting_starter(Settings())

    assert starter is not None
    assert starter.release.kind == "starter"


def test_its_files_are_those_that_the_manifest_names() -> None:
    release, files = read_starter()

    assert sealed(release) == release
    assert set(files) == set(release.files)
    assert changed({files[path].name: sha for path, sha in release.files.items()}, FOLDER) == []


def test_it_is_small_and_in_bfloat16_on_all_linear_layers() -> None:
    tensors = header()

    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}
    assert len(tensors) == 30 * 7 * 2  # layers, linear layers of each, A and B


def test_nine_of_ten_statements_pass_on_held_out_customers() -> None:
    figures = read_starter().release.metrics

    assert figures["grounding_after"]["prompts"] >= 200
    assert figures["grounding_after"]["share"][0] >= 0.9
    assert figures["grounding_after"]["share"][1] > figures["grounding_before"]["share"][2]


def test_the_read_statements_are_all_labelled_and_told_as_they_are() -> None:
    rows = read_labels(RESULTS / "grounding-sentences.csv")
    told = (RESULTS / "grounding.md").read_text(encoding="utf-8")

    assert len(rows) == STATEMENTS
    assert {row["label"] for row in rows} <= {"true", "false"}
    for model in ("base", "starter"):
        found = agreement([row for row in rows if row["model"] == model])
        line = (
            f"| {model} | {found.statements} | {found.true} | {found.passed} "
            f"| {found.passed_false} | {found.refused_true} | {found.agreement:.3f} |"
        )
        assert line in told, line


def test_the_canary_s_texts_are_the_adapter_s_own() -> None:
    release, _ = read_starter()

    assert len(release.canary) >= 3
    for line in release.canary:
        assert line.prompt.endswith(":")
        assert re.match(r" \w", line.text)
        assert line.logprob > line.base_logprob

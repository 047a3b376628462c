"""Statements for a reader: drawn from the measured answers, labelled by hand, compared.

    python -m trainer.starter.label_agreement WORK FILE

writes 200 statements of the run in WORK to FILE (CSV) with an empty column `label`, which a
person fills: `true` if the events bear the statement out, `false` if not.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import orjson

from models.profile.evidence import section_events
from models.profile.grounding import grounded
from models.profile.prompts import render
from models.schemas import ProfileRequest, Section
from models.settings import load_settings
from models.text import stems
from trainer.starter.material import SEED, read_material
from trainer.starter.starter_release import ANSWERS

STATEMENTS: Final = 200  # half of them of the base model, which fails more often
PROMPTS: Final = 64  # the first ones measured, which are in a drawn order
SHOWN: Final = 3  # texts beside a statement
COLUMNS: Final = ("model", "section", "statement", "events", "verdict", "label")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the check's verdicts stand to a reader's labels, of one model or of all."""

    statements: int
    true: int  # by the reader
    passed: int  # by the check
    passed_false: int  # the check passed what the reader calls false
    refused_true: int

    @property
    def agreement(self) -> float:
        """Share of statements on which check and reader agree."""
        return 1 - (self.passed_false + self.refused_true) / max(1, self.statements)


def agreement(rows: Sequence[dict[str, str]]) -> Agreement:
    """Compare the columns verdict (passed, refused) and label (true, false)."""
    pairs = [(row["verdict"] == "passed", row["label"] == "true") for row in rows]
    return Agreement(
        statements=len(pairs),
        true=sum(true for _, true in pairs),
        passed=sum(passed for passed, _ in pairs),
        passed_false=sum(passed and not true for passed, true in pairs),
        refused_true=sum(true and not passed for passed, true in pairs),
    )


def read_labels(path: Path) -> list[dict[str, str]]:
    """The rows of a labelled file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def draw(work: Path, requests: Sequence[ProfileRequest]) -> list[dict[str, str]]:
    """STATEMENTS rows without labels, half of each model, in a drawn order."""
    records = [orjson.loads(line) for line in (work / ANSWERS).read_bytes().splitlines()]
    asked = {render(request): request for request in requests}
    chance = random.Random(SEED)
    rows = []
    for model in ("before", "after"):
        told = [*chain.from_iterable(_told(one, model, asked) for one in records[:PROMPTS])]
        rows += chance.sample(told, min(STATEMENTS // 2, len(told)))
    chance.shuffle(rows)
    return rows


def _told(
    record: dict[str, Any], model: str, asked: dict[str, ProfileRequest]
) -> Iterator[dict[str, str]]:
    request = asked[record["prompt"]]
    for one in record[model]:
        yield {
            "model": "base" if model == "before" else "starter",
            "section": one["section"],
            "statement": one["text"],
            "events": " | ".join(_beside(request, Section(one["section"]), one["text"])),
            "verdict": "passed" if one["passed"] else "refused",
            "label": "",
        }


def _beside(request: ProfileRequest, section: Section, statement: str) -> list[str]:
    """The texts that the check cites, or else those of the section that share most words."""
    events = section_events(request)[section]
    found = grounded(statement, section, events)
    cited = {event.event_id for event in events} & set(found.evidence if found else ())
    texts = dict.fromkeys(
        event.text for event in reversed(events) if not cited or event.event_id in cited
    )
    said = stems(statement)
    return sorted(texts, key=lambda text: -len(said & stems(text)))[:SHOWN]


def main() -> None:
    """Command line: WORK FILE."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m trainer.starter.label_agreement WORK FILE")
    work, path = Path(sys.argv[1]), Path(sys.argv[2])
    rows = draw(work, read_material(load_settings()).measured)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

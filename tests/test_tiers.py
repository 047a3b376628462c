"""Three tiers of tests: fast, stream, and with models; `make test` runs each test once."""

from __future__ import annotations

import re
import subprocess
from itertools import chain, combinations
from pathlib import Path

import pytest

from tests.conftest import implied

ROOT = Path(__file__).parents[1]
MARKS = ("service", "model", "vllm")
FIXTURES = ("kafka", "vllm", "needs_java")
# A limit of a test's own in wall time, which a slow machine would reach.
LIMITS = (
    r"mark\.timeout|(deadline|patience|until) = time\.monotonic\(\) \+|communicate\(timeout"
    r"|asyncio\.timeout\(\d|assert .*\.wait\(\d|wait_for\(.*, \d+(\.\d+)?\)"
)


def subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    sizes = range(len(names) + 1)
    return list(chain.from_iterable(combinations(names, size) for size in sizes))


def commands(target: str) -> list[str]:
    """The runs of pytest that a make target comes to."""
    done = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [line for line in done.stdout.splitlines() if "-m pytest" in line]


def chosen_by(command: str, marks: set[str]) -> bool:
    [expression] = re.findall(r'-m "(.*?)"', command)
    return bool(eval(expression, {}, {mark: mark in marks for mark in MARKS}))


def test_the_tiers_are_what_make_test_runs() -> None:
    [fast], [stream] = commands("test-fast"), commands("test-stream")
    assert commands("test")[:2] == [fast, stream]
    assert len(commands("test")) == 3


@pytest.mark.parametrize("marks", subsets(MARKS), ids="+".join)
def test_every_test_is_in_one_tier_of_make_test(marks: tuple[str, ...]) -> None:
    runs = commands("test")
    for fixtures in subsets(FIXTURES):
        found = implied(marks, fixtures)
        assert sum(chosen_by(run, found) for run in runs) == 1, (marks, fixtures)


def test_what_needs_a_broker_is_not_fast_and_what_needs_a_model_not_of_the_stream() -> None:
    [fast], [stream] = commands("test-fast"), commands("test-stream")
    assert chosen_by(stream, implied((), ["kafka"]))
    for marks, fixtures in ((["model"], []), ([], ["vllm"]), (["model"], ["kafka"])):
        assert not chosen_by(fast, implied(marks, fixtures))
        assert not chosen_by(stream, implied(marks, fixtures))


def test_no_test_has_a_limit_of_its_own_in_wall_time() -> None:
    """But the driver of faults, which measures how long Palate takes by the wall."""
    faults = {path for path in (ROOT / "tests/faults").rglob("*.py") if "test_" not in path.name}
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if path != Path(__file__) and path not in faults
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(LIMITS, line)
    ]
    assert lines == [], "use tests/patience.py"

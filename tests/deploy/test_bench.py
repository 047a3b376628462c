"""What the benchmarks count; how fast this machine is, is no test's business."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from deploy.bench import machine, report
from deploy.bench.bench_broker import Ground, make_topics
from deploy.bench.catalogue import item_ids, sample_items
from deploy.bench.changelog import read_between
from deploy.bench.latency import Arrived, match
from deploy.bench.live import Sent
from deploy.bench.load import Burst, events
from deploy.bench.machine import describe
from deploy.bench.progress import WorkerProgress
from deploy.bench.race import Contestant, race
from deploy.bench.requests import requests
from deploy.bench.rows import Figure, at_least, below, median_row
from deploy.commands.bench import NAMES, _chosen
from models.errors import SettingsError
from models.profile.prompts import render
from models.schemas import Interaction
from streams.codec import partition_for
from streams.kafka.clients import consumer
from tests.records import records

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who else uses the processors matters only where something is timed."""
    monkeypatch.setattr(machine, "LOOK_S", 0.01)


def test_a_row_tells_whether_the_median_meets_the_aim():
    assert at_least("ratio", [0.5, 0.9, 0.85], 0.8, "×").met is True
    assert at_least("ratio", [0.5, 0.79, 0.85], 0.8, "×").met is False
    assert below("latency", [10.0, 60.0, 49.0], 50, "ms") == Figure(
        "latency", 49.0, "ms", "< 50 ms", True, runs=(10.0, 60.0, 49.0)
    )
    assert median_row("rows", [3.0, 1.0, 2.0], "rows/s").met is None


def test_the_load_is_the_same_for_the_same_seed_and_goes_on_without_repeating():
    first, second = events(50, 10, item_ids()), events(50, 10, item_ids(), first=50)

    assert first == events(50, 10, item_ids())
    decoded = [Interaction.model_validate_json(event.value) for event in first + second]
    assert len({one.event_id for one in decoded}) == 100
    assert [one.timestamp for one in decoded] == sorted(one.timestamp for one in decoded)
    assert all(
        event.key.decode() == one.user_id for event, one in zip(first, decoded, strict=False)
    )


def test_an_event_s_latency_ends_with_the_first_list_that_knows_it():
    sent = [Sent(b"ada", 0, 5, 1.0), Sent(b"ada", 0, 6, 2.0), Sent(b"bob", 1, 5, 3.0)]
    arrived = [Arrived(b"ada", 4, 1.1), Arrived(b"ada", 6, 2.5), Arrived(b"bob", 9, 3.25)]

    assert match(sent, arrived) == [1.5, 0.5, 0.25]
    assert match(sent, arrived[:2]) is None


def test_progress_is_seen_by_another_reader(tmp_path: Path):
    path = tmp_path / "progress"
    reader, writer = WorkerProgress(path), WorkerProgress(path)

    writer.add(3, position=7)
    writer.add(2, position=9)

    assert (reader.read().records, reader.read().position) == (5, 9)
    assert reader.read().at_ns > 0


def test_a_stored_benchmark_replaces_only_its_own_earlier_result(tmp_path: Path):
    def found(value: float) -> dict:
        row = at_least("x", [value], 1.0, "×", note="why")
        about = {"what": "What.", "command": "c", "seed": 1, "at": "now", "machine": describe()}
        return report.result([row], **about)

    report.store(tmp_path, "2026-01-01", {"one": found(1.0), "two": found(2.0)})
    path = report.store(tmp_path, "2026-01-01", {"two": found(0.5)})

    stored = orjson.loads(path.read_bytes())
    assert [stored[name]["rows"][0]["value"] for name in ("one", "two")] == [1.0, 0.5]
    page = (tmp_path / "README.md").read_text()
    assert "| x | 0.5 × | 1 | ≥ 1 × | **no** | why |" in page
    assert "| x | 1 × | 1 | ≥ 1 × | yes | why |" in page
    assert sorted(one.name for one in tmp_path.iterdir()) == ["2026-01-01.json", "README.md"]


def test_the_page_says_how_many_runs_a_figure_is_the_median_of():
    rows = [median_row("one", [1.0], "s"), median_row("three", [3.0, 1.0, 2.0], "s")]
    about = {"what": "What.", "command": "c", "seed": 1, "at": "now", "machine": describe()}
    page = report.page({"b": report.result(rows, **about)})
    assert "| one | 1 s | 1 |" in page
    assert "| three | 2 s | 3 |" in page


def test_the_committed_page_is_made_from_the_stored_results():
    folder = ROOT / "docs" / "benchmarks"
    made = report.page(report.newest(folder))
    assert (folder / "README.md").read_text() == made


def test_of_the_system_only_the_version_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.release", lambda: "6.18.44-somebody-s-build")

    assert describe()["system"].split()[1:] == ["6.18.44"]


def test_an_unknown_benchmark_is_refused_with_the_known_ones():
    assert _chosen(None) == list(NAMES)
    assert _chosen(["latency", "throughput"]) == ["throughput", "latency"]
    with pytest.raises(SettingsError, match=r"called speed; throughput, "):
        _chosen(["speed"])


def test_renaming_customers_leaves_their_prompts_as_they_are(make_settings):
    settings = make_settings()
    one, other = requests(settings, 3), requests(settings, 3, suffix="-again")

    assert [render(a) for a in one] == [render(b) for b in other]
    assert {a.user_id for a in one}.isdisjoint(b.user_id for b in other)
    assert len(sample_items()) > 4_000


def test_a_burst_puts_every_event_under_its_key_and_in_its_partition(kafka, make_settings):
    settings = make_settings()
    given = events(500, 20, item_ids())

    async def scenario() -> tuple[int, int]:
        await make_topics(settings)
        async with Burst(settings) as burst:
            await burst.send(burst.pack(given))
        async with consumer(settings, (), None) as reader:
            from aiokafka import TopicPartition

            places = [TopicPartition(settings.topic("interactions"), n) for n in range(4)]
            ends = await reader.end_offsets(places)
        written = await read_between(settings, dict.fromkeys(places, 0), ends)
        return written.records, written.size

    counted = asyncio.run(scenario())
    rows = records(settings, "interactions")
    assert sorted((row.key, row.value) for row in rows) == sorted(given)
    assert all(row.partition == partition_for(row.key, 4) for row in rows)
    assert counted == (500, sum(len(event.key) + len(event.value) for event in given))


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("tracker", ()),
        ("faust_agent", ("each",)),
        ("faust_agent", ("batch",)),
        ("aiokafka_loop", ()),
        ("quix", ()),
    ],
)
def test_a_contestant_finishes_the_race(kafka, make_settings, tmp_path, module, arguments):
    settings = make_settings()
    where = Ground(tmp_path, settings, settings.kafka.bootstrap, quick=True)
    contestant = Contestant(module, f"deploy.bench.contestants.{module}", arguments)

    outcome = asyncio.run(race(where, contestant, 300, item_ids(), users=20))

    assert outcome.per_second > 0
    assert outcome.cpu_us >= 0  # counted in hundredths of a second

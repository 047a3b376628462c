"""Imports against the real broker: in order, once, and again from where they stopped."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.broker import Broker
from models.errors import ImportFailed, StackError
from models.schemas import Interaction
from models.settings import Settings
from streams.codec import partition_for
from streams.importers import transmission
from streams.importers.report import ImportReport
from streams.importers.rows import Kind
from streams.importers.survey import Survey
from streams.importers.transmission import ImportOptions, import_files
from tests.conftest import MakeSettings, role_environment
from tests.patience import HANG_S, Deadline
from tests.ports import free_port
from tests.records import records

pytestmark = pytest.mark.service

OPTIONS = ImportOptions(Kind.INTERACTIONS, "generic")
SAMPLE = Path(__file__).parents[3] / "data" / "sample"


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    return make_settings()


def events_file(folder: Path, rows: int) -> Path:
    path = folder / "events.csv"
    with path.open("w") as file:
        file.write("event_id,user_id,item_id,type,timestamp\n")
        for n in range(rows):
            file.write(f"e{n},u{n % 50},i{n % 7},click,{1_600_000_000_000 + n * 1000}\n")
    return path


def event_ids(settings: Settings) -> Counter[str]:
    return Counter(
        json.loads(record.value)["event_id"] for record in records(settings, "interactions")
    )


def imported(
    settings: Settings,
    paths: Sequence[Path],
    options: ImportOptions = OPTIONS,
    watch: Callable[[Survey], None] = lambda _: None,
) -> list[int]:
    """Messages sent per file."""
    reports = asyncio.run(import_files(settings, paths, options, watch))
    return [report.sent for report in reports]


def test_rows_arrive_under_their_user_in_file_order(settings: Settings, tmp_path: Path) -> None:
    assert imported(settings, [events_file(tmp_path, 500)]) == [500]

    times = defaultdict(list)
    for record in records(settings, "interactions"):
        event = Interaction.model_validate_json(record.value)
        assert record.key == event.user_id.encode()
        assert record.partition == partition_for(record.key, settings.kafka.partitions)
        times[record.partition].append(event.timestamp)
    assert sum(map(len, times.values())) == 500
    assert all(in_order == sorted(in_order) for in_order in times.values())


def test_the_sample_arrives_whole(settings: Settings) -> None:
    items = ImportOptions(Kind.ITEMS, "online-retail")
    events = ImportOptions(Kind.INTERACTIONS, "online-retail", limit=3_000)

    assert imported(settings, [SAMPLE / "items.parquet"], items) == [4_619]
    assert imported(settings, [SAMPLE / "interactions.parquet"], events) == [3_000]
    assert len({record.key for record in records(settings, "items")}) == 4_619
    assert max(event_ids(settings).values()) == 1


def test_a_finished_import_sends_nothing_again(settings: Settings, tmp_path: Path) -> None:
    path = events_file(tmp_path, 300)

    assert imported(settings, [path]) == [300]
    assert imported(settings, [path]) == [0]
    assert imported(settings, [path], replace(OPTIONS, resume=False)) == [300]
    assert set(event_ids(settings).values()) == {2}


def test_a_limited_import_is_gone_on_with(settings: Settings, tmp_path: Path) -> None:
    path = events_file(tmp_path, 300)

    assert imported(settings, [path], replace(OPTIONS, limit=120)) == [120]
    assert imported(settings, [path]) == [180]
    assert set(event_ids(settings).values()) == {1}


def test_an_interrupted_import_loses_and_repeats_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    path = events_file(tmp_path, 3_000)

    def stop_halfway(opened: Survey) -> None:
        if opened.report.rows >= 1_500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(settings, [path], watch=stop_halfway)
    (rest,) = imported(settings, [path])

    assert 0 < rest <= 1_600
    assert event_ids(settings) == Counter({f"e{n}": 1 for n in range(3_000)})


def test_a_damaged_file_leaves_what_was_read_before_the_damage(
    settings: Settings, tmp_path: Path
) -> None:
    whole = gzip.compress(events_file(tmp_path, 40_000).read_bytes())
    path = tmp_path / "events.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ImportFailed, match="truncated"):
        imported(settings, [path])

    assert len(event_ids(settings)) > 10_000


def test_a_damaged_row_is_all_that_is_left_out(settings: Settings, tmp_path: Path) -> None:
    path = events_file(tmp_path, 400)
    path.write_bytes(
        path.read_bytes() + b"e\xff,u,i,click,1600000000000\nz,u,i,click,1600000000000"
    )

    assert imported(settings, [path]) == [401]


def test_a_broker_that_is_away_is_named(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transmission, "CONNECT_S", 1.0)
    nowhere = make_settings(kafka={"bootstrap": "127.0.0.1:1"})

    with pytest.raises(StackError, match=r"127\.0\.0\.1:1 did not answer"):
        imported(nowhere, [events_file(tmp_path, 1)])


def test_killed_outright_it_loses_nothing_and_goes_on_from_what_was_saved(
    settings: Settings, tmp_path: Path
) -> None:
    rows = 20_000
    path = events_file(tmp_path, rows)
    # 20,000 s of events at 2,000 × take 10 s: there is time to kill it.
    command = [
        *(sys.executable, "-m", "deploy", "import", "interactions", str(path)),
        *("--speed", "2000", "--json"),
    ]
    importing = subprocess.Popen(
        command, env={**os.environ, **role_environment(settings)}, cwd=SAMPLE.parents[1]
    )
    try:
        saved = saved_row(settings, at_least=2_000)
    finally:
        importing.send_signal(signal.SIGKILL)
        importing.wait()
    (rest,) = imported(settings, [path])

    ids = event_ids(settings)
    assert rest <= rows - saved
    assert set(ids) == {f"e{n}" for n in range(rows)}


def test_while_the_broker_is_away_an_import_says_so_and_then_resumes(
    own_broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = own_broker.settings
    path = events_file(tmp_path, 20_000)
    options = replace(OPTIONS, speed=1_000.0)  # 20,000 s of events take 20 s

    async def main() -> list[ImportReport]:
        importing = asyncio.create_task(import_files(settings, [path], options))
        await asyncio.sleep(3)
        await asyncio.to_thread(own_broker.stop)
        await said(caplog, "waiting for Kafka at")
        assert not importing.done()
        await asyncio.to_thread(own_broker.start)
        await said(caplog, "answers again")
        return await importing

    (report,) = asyncio.run(main())

    assert report.sent == 20_000
    assert event_ids(settings) == Counter({f"e{n}": 1 for n in range(20_000)})
    assert settings.kafka.bootstrap in caplog.text


def test_an_import_interrupted_while_the_broker_is_away_ends_and_can_be_resumed(
    own_broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = own_broker.settings
    path = events_file(tmp_path, 5_000)

    async def main() -> None:
        options = replace(OPTIONS, speed=500.0)
        importing = asyncio.create_task(import_files(settings, [path], options))
        await asyncio.sleep(2)
        await asyncio.to_thread(own_broker.stop)
        await said(caplog, "waiting for Kafka at")
        importing.cancel()
        async with asyncio.timeout(HANG_S):  # it would wait for ever
            with pytest.raises(asyncio.CancelledError):
                await importing

    asyncio.run(main())
    own_broker.start()
    imported(settings, [path])

    assert set(event_ids(settings)) == {f"e{n}" for n in range(5_000)}


@pytest.fixture
def own_broker(needs_java: None, make_settings: MakeSettings) -> Iterator[Broker]:
    """A broker that no other test uses: it is stopped and started."""
    bootstrap = f"127.0.0.1:{free_port()}"
    broker = Broker(make_settings(kafka={"bootstrap": bootstrap, "embedded": True}))
    broker.start()
    yield broker
    broker.stop()


async def said(caplog: pytest.LogCaptureFixture, words: str) -> None:
    async with asyncio.timeout(HANG_S):
        while words not in caplog.text:
            await asyncio.sleep(0.1)


def saved_row(settings: Settings, at_least: int) -> int:
    """The position that the running import has saved, once it is far enough."""
    deadline = Deadline()
    while not deadline.over():
        for file in (settings.data_dir / "imports").glob("*.json"):
            row = json.loads(file.read_bytes())["row"]
            if row >= at_least:
                return int(row)
        time.sleep(0.05)
    raise AssertionError(f"no position of {at_least} rows was saved")

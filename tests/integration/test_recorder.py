"""The recorder as a process of its own on a real broker: killed, suspended, refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import CommitFailedError
from filelock import FileLock, Timeout
from prometheus_client import CollectorRegistry

from models.errors import EventLogError
from models.schemas import Interaction, Item
from models.settings import Settings
from streams.event_log import SegmentLog, connect_views
from streams.event_log.repair import apart
from streams.kafka.clients import client_options, consumer, deliver, group_id, producer
from streams.kafka.topics import ensure_topics
from streams.metrics import RecorderMetrics
from streams.recorder.role import Recorder
from tests.conftest import MakeSettings, role_environment
from tests.patience import Deadline
from tests.streams.clients import make_again

pytestmark = pytest.mark.service
NOW = 1_300_000_000_000


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    made = make_settings(
        kafka={"partitions": 3},
        log={"rows": 200, "seconds": 0.1, "compact_below_rows": 1_000, "compact_every_s": 0.5},
    )
    asyncio.run(ensure_topics(made))
    return made


class Process:
    """A recorder in a process of its own."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.output = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streams.recorder"],
                env={**os.environ, **role_environment(settings)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        return self.process.wait()


@contextmanager
def recorder(settings: Settings, **metrics: int) -> Iterator[Process]:
    own = settings.model_copy(update={"metrics": settings.metrics.model_copy(update=metrics)})
    running = Process(own, settings.data_dir.parent / "recorder.log")
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def wait_until(holds: Callable[[], bool], what: str, settings: Settings) -> None:
    deadline = Deadline()
    while not holds():
        if deadline.over():
            output = settings.data_dir.parent / "recorder.log"
            raise AssertionError(f"not {what} in time; {output.read_text()[-4000:]}")
        time.sleep(0.05)


def interaction(number: int) -> Interaction:
    return Interaction(
        event_id=f"e{number}",
        user_id=f"u{number % 50}",
        item_id=f"i{number % 9}",
        type="purchase",
        timestamp=NOW + number,
    )


async def produce(settings: Settings, numbers: range, pause_s: float = 0.0) -> None:
    """Interactions, every tenth not JSON; and an item now and then."""
    async with producer(settings) as sender:
        for number in numbers:
            event = interaction(number)
            value = b"not json" if number % 10 == 0 else event.to_json()
            topic = settings.topic("interactions")
            await sender.send(topic, value, key=event.user_id.encode())
            if number % 100 == 0:
                item = Item(item_id=event.item_id, title=f"title {number}")
                await sender.send(settings.topic("items"), item.to_json(), key=b"i")
                await asyncio.sleep(pause_s)
        await sender.flush()


async def _topic_content(settings: Settings, topic: str) -> dict[int, list[tuple[int, bytes]]]:
    async with consumer(settings, (), None) as reader:
        places = [
            TopicPartition(settings.topic(topic), n) for n in range(settings.kafka.partitions)
        ]
        reader.assign(places)
        ends = await reader.end_offsets(places)
        found: dict[int, list[tuple[int, bytes]]] = {place.partition: [] for place in places}
        while any([await reader.position(place) < ends[place] for place in places]):
            for place, records in (await reader.getmany(timeout_ms=500)).items():
                found[place.partition] += [(record.offset, record.value) for record in records]
        return found


def topic_content(settings: Settings, topic: str) -> dict[int, list[tuple[int, bytes]]]:
    return asyncio.run(_topic_content(settings, topic))


def log_content(settings: Settings, topic: str) -> dict[int, list[tuple[int, bytes]]]:
    log = SegmentLog(settings.log_dir)
    return {
        partition: [
            (row["offset"], row["value"])
            for row in log.rows(topic, partition, columns=["offset", "value"])
        ]
        for partition in range(settings.kafka.partitions)
    }


def logged(settings: Settings, topic: str = "interactions") -> int:
    log = SegmentLog(settings.log_dir)
    return sum(log.next_offset(topic, p) for p in range(settings.kafka.partitions))


def test_a_recorder_killed_while_records_flow_logs_each_offset_once(settings: Settings) -> None:
    total = 12_000

    async def flow_and_kills() -> None:
        flow = asyncio.create_task(produce(settings, range(total), pause_s=0.05))
        for share in (0.15, 0.4, 0.7):
            with recorder(settings) as running:
                reached = lambda share=share: logged(settings) > share * total * 0.8  # noqa: E731
                await asyncio.to_thread(wait_until, reached, "recording", settings)
                running.send(signal.SIGKILL)
        await flow

    asyncio.run(flow_and_kills())
    with recorder(settings) as running:
        wait_until(lambda: logged(settings) >= total, "caught up", settings)
        wait_until(lambda: logged(settings, "items") >= total // 100, "caught up", settings)
        running.send(signal.SIGTERM)
        assert running.ended() == 0
    for topic in ("interactions", "items"):
        assert log_content(settings, topic) == topic_content(settings, topic)
    counted = connect_views(settings.log_dir, settings.windows.weights).execute(
        "SELECT status, count(*), count(DISTINCT event_id) FROM interactions GROUP BY 1 ORDER BY 1"
    )
    invalid = total // 10
    assert counted.fetchall() == [("invalid", invalid, 0), ("ok", total - invalid, total - invalid)]


def test_a_suspended_recorder_that_wakes_up_changes_nothing(settings: Settings) -> None:
    with recorder(settings) as zombie:
        asyncio.run(produce(settings, range(2_000)))
        wait_until(lambda: logged(settings) >= 2_000, "recorded", settings)
        asyncio.run(produce(settings, range(2_000, 2_500)))
        suspend_between_writes(zombie, settings)
        with recorder(settings, recorder_port=settings.metrics.profiler_port) as successor:
            asyncio.run(produce(settings, range(2_500, 4_000)))
            wait_until(lambda: logged(settings) >= 4_000, "taken over", settings)
            zombie.send(signal.SIGCONT)
            asyncio.run(produce(settings, range(4_000, 5_000)))
            wait_until(lambda: logged(settings) >= 5_000, "recorded by both", settings)
            for running in (zombie, successor):
                running.send(signal.SIGTERM)
                assert running.ended() == 0
    assert log_content(settings, "interactions") == topic_content(settings, "interactions")


def suspend_between_writes(running: Process, settings: Settings) -> None:
    """Who falls asleep while it writes keeps the partition's lock, and others say so and end."""
    while True:
        running.send(signal.SIGSTOP)
        if not any(is_locked(path) for path in settings.log_dir.rglob(".lock")):
            return
        running.send(signal.SIGCONT)
        time.sleep(0.05)


def is_locked(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def test_sigterm_writes_what_is_held(kafka: str, make_settings: MakeSettings) -> None:
    patient = make_settings(kafka={"partitions": 1}, log={"seconds": 3600.0})
    asyncio.run(ensure_topics(patient))
    asyncio.run(produce(patient, range(100)))
    with recorder(patient) as running:
        wait_until(lambda: lag(patient) == 0, "read", patient)
        assert logged(patient) == 0
        running.send(signal.SIGTERM)
        assert running.ended() == 0
    assert logged(patient) == 100


def lag(settings: Settings) -> float | None:
    """Records between the recorder and the end of partition 0, as its metrics say."""
    try:
        page = httpx.get(f"http://127.0.0.1:{settings.metrics.recorder_port}/metrics").text
    except httpx.TransportError:
        return None
    line = 'palate_lag_records{partition="0",topic="interactions"} '
    return next((float(found[len(line) :]) for found in page.split("\n") if line in found), None)


async def _expire(settings: Settings, before: int) -> None:
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        place = TopicPartition(settings.topic("interactions"), 0)
        await admin.delete_records({place: RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


async def _recreate(settings: Settings) -> None:
    await make_again(settings, "interactions")


async def _recreate_with_more(settings: Settings) -> None:
    await _recreate(settings)
    await _send_to_first(settings, 30)


async def _send_to_first(settings: Settings, count: int) -> None:
    async with producer(settings) as sender:
        for _ in range(count):
            topic = settings.topic("interactions")
            await deliver(sender, topic, b"{}", key=b"u", partition=0)


@pytest.mark.parametrize(
    ("disturb", "message"),
    [
        (
            lambda settings: _expire(settings, before=9),
            "offsets 5..8 expired before they were read",
        ),
        (_recreate, "was deleted and made again"),
        (_recreate_with_more, "was deleted and made again"),
    ],
)
def test_events_lost_before_they_were_logged_are_a_loud_refusal(
    settings: Settings, disturb: Callable[[Settings], object], message: str
) -> None:
    asyncio.run(_send_to_first(settings, 5))
    with recorder(settings) as running:
        wait_until(lambda: logged(settings) == 5, "recorded", settings)
        running.send(signal.SIGTERM)
        assert running.ended() == 0
    asyncio.run(_send_to_first(settings, 10))
    asyncio.run(disturb(settings))
    with recorder(settings) as running:
        assert running.ended() == 1
        assert message in running.output.read_text()
    assert logged(settings) == 5


def test_a_topic_made_again_while_it_is_recorded_ends_the_recorder(settings: Settings) -> None:
    asyncio.run(_send_to_first(settings, 5))
    with recorder(settings) as running:
        wait_until(lambda: logged(settings) == 5, "recorded", settings)
        asyncio.run(_recreate_with_more(settings))
        assert running.ended() == 1
    assert logged(settings) == 5
    with recorder(settings) as running:
        assert running.ended() == 1
        assert "PALATE_LOG__DIR" in running.output.read_text()
    assert logged(settings) == 5


def test_the_advice_for_a_topic_made_again_loses_nothing(settings: Settings) -> None:
    asyncio.run(_send_to_first(settings, 5))
    with recorder(settings):
        wait_until(lambda: logged(settings) == 5, "recorded", settings)
    old = log_content(settings, "interactions")
    asyncio.run(_recreate_with_more(settings))
    elsewhere = settings.log.model_copy(update={"dir": settings.data_dir / "log-2"})
    anew = settings.model_copy(update={"log": elsewhere})
    with recorder(anew):
        wait_until(lambda: logged(anew) == 30, "recorded", anew)
    assert log_content(anew, "interactions") == topic_content(anew, "interactions")
    assert log_content(settings, "interactions") == old


def test_a_segment_damaged_meanwhile_is_set_apart_and_read_again(settings: Settings) -> None:
    with recorder(settings) as running:
        asyncio.run(produce(settings, range(2_000)))
        wait_until(lambda: logged(settings) >= 2_000, "recorded", settings)
        folder = SegmentLog(settings.log_dir).partition_folder("interactions", 0)
        segment = folder / SegmentLog(settings.log_dir).segments("interactions", 0)[0].file
        segment.write_bytes(segment.read_bytes()[:100])
        asyncio.run(produce(settings, range(2_000, 3_000)))
        wait_until(lambda: logged(settings) >= 3_000, "recorded on", settings)
        wait_until(lambda: apart(folder) != [], "set apart", settings)
        wait_until(lambda: whole(settings), "read again", settings)
        running.send(signal.SIGTERM)
        assert running.ended() == 0
    assert log_content(settings, "interactions") == topic_content(settings, "interactions")


def whole(settings: Settings) -> bool:
    """Whether nothing is missing of the log."""
    log = SegmentLog(settings.log_dir)
    numbers = range(settings.kafka.partitions)
    try:
        return not any(log.manifest("interactions", number).missing for number in numbers)
    except EventLogError:
        return False


def test_a_lost_manifest_costs_nothing_even_if_a_gap_is_accepted(settings: Settings) -> None:
    asyncio.run(_send_to_first(settings, 5))
    with recorder(settings):
        wait_until(lambda: logged(settings) == 5, "recorded", settings)
    folder = SegmentLog(settings.log_dir).partition_folder("interactions", 0)
    (folder / "manifest.json").unlink()
    asyncio.run(_send_to_first(settings, 10))
    asyncio.run(_expire(settings, before=5))
    accepting = settings.log.model_copy(update={"accept_gap": True})
    with recorder(settings.model_copy(update={"log": accepting})):
        wait_until(lambda: logged(settings) == 15, "recorded", settings)
    rows = SegmentLog(settings.log_dir).rows("interactions", 0, columns=["offset"])
    assert [row["offset"] for row in rows] == list(range(15))


def test_an_accepted_gap_is_left_behind(settings: Settings) -> None:
    asyncio.run(_send_to_first(settings, 15))
    asyncio.run(_expire(settings, before=9))
    accepting = settings.log.model_copy(update={"accept_gap": True})
    with recorder(settings.model_copy(update={"log": accepting})):
        wait_until(lambda: logged(settings) == 15, "recorded", settings)
    rows = SegmentLog(settings.log_dir).rows("interactions", 0, columns=["offset"])
    assert [row["offset"] for row in rows] == list(range(9, 15))


async def committed(settings: Settings) -> int:
    """Up to where the recorder's group says that it has read interactions, all partitions."""
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group_id(settings, "recorder"))
    finally:
        await admin.close()
    topic = settings.topic("interactions")
    return sum(max(0, one.offset) for place, one in found.items() if place.topic == topic)


@asynccontextmanager
async def recording(settings: Settings, failures: float) -> AsyncIterator[None]:
    """A recorder in this process, whose first commits fail."""
    role, stop = Recorder(settings, RecorderMetrics(CollectorRegistry())), asyncio.Event()
    new_consumer, left = role._new_consumer, failures

    def failing() -> AIOKafkaConsumer:
        client = new_consumer()
        commit = client.commit

        async def commit_or_fail(offsets: dict[TopicPartition, int]) -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                raise CommitFailedError("the group is being shared out anew")
            await commit(offsets)

        client.commit = commit_or_fail
        return client

    role._new_consumer = failing
    running = asyncio.create_task(role.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = Deadline()
    while not await condition():
        assert not deadline.over()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("failures", [1, 3])
def test_an_offset_that_could_not_be_committed_is_committed_without_another_record(
    settings: Settings, failures: int
) -> None:
    async def scenario() -> None:
        async with recording(settings, failures):
            await produce(settings, range(20))
            await until(lambda: _is(committed(settings), 20))

    asyncio.run(scenario())


def test_what_was_logged_and_not_committed_is_committed_by_the_next_recorder(
    settings: Settings,
) -> None:
    async def scenario() -> None:
        async with recording(settings, failures=float("inf")):
            await produce(settings, range(20))
            await until(lambda: _is(asyncio.to_thread(logged, settings), 20))
        assert await committed(settings) == 0
        async with recording(settings, failures=0):
            await until(lambda: _is(committed(settings), 20))

    asyncio.run(scenario())


async def _is(asked: Awaitable[int], expected: int) -> bool:
    return await asked == expected

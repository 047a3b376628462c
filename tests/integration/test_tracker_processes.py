"""Tracker workers as processes of their own: killed, taken over from, back again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from deploy.observe import MetricLine, scrape, total
from models.fakes import HashEmbedder
from models.machine_faults import MODEL_LIBRARIES
from models.ports import VectorRow
from models.ranking.lance_index import LanceIndex
from models.schemas import (
    Interaction,
    Item,
    ProfileEdit,
    ProfileRequest,
    Recommendation,
    ReleaseAnnouncement,
)
from models.settings import Settings
from streams.kafka.clients import client_options, consumer, deliver, producer, start_client
from streams.kafka.topics import CHANGELOG, ensure_topics
from tests.conftest import MakeSettings, role_environment
from tests.integration.live import tracker_state, until
from tests.records import records
from tests.streams.clients import delete_topic, make_again

pytestmark = pytest.mark.service
NOW = 1_300_000_000_000
ITEMS = ("tea", "teapot", "spoon")
USERS = [f"u{number}" for number in range(24)]

NEVER_COMMITTING = """
import asyncio
from aiokafka import AIOKafkaProducer
from streams.tracker import __main__
AIOKafkaProducer.commit_transaction = lambda self: asyncio.Event().wait()
__main__.main()
"""

WITHOUT_MODELS = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(MODEL_LIBRARIES)}))
from streams.tracker import __main__
__main__.main()
"""


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    """Topics with a serving release and its items, as an indexer leaves them."""
    made = make_settings(
        workers=2,
        trigger={"calls_per_minute": 6_000, "burst_calls": 100, "min_interval_s": 0.0},
    )
    asyncio.run(ensure_topics(made))
    vectors = HashEmbedder().embed(ITEMS)
    writer = LanceIndex(made.lancedb_uri, writer=True)
    rows = [
        VectorRow(name, vector, name, 0, {"available": True})
        for name, vector in zip(ITEMS, vectors, strict=True)
    ]
    writer.upsert("items@base-0", rows)
    writer.close()
    serving = ReleaseAnnouncement(release="base-0", status="serving", at=NOW)
    send(made, "releases", {"base-0": serving.to_json()})
    send(made, "items", {name: Item(item_id=name, title=name).to_json() for name in ITEMS})
    return made


def send(settings: Settings, topic: str, values: dict[str, bytes]) -> None:
    async def produce() -> None:
        async with producer(settings) as sender:
            for key, value in values.items():
                await deliver(sender, settings.topic(topic), value, key=key.encode())

    asyncio.run(produce())


def buy(settings: Settings, number: int, users: list[str]) -> None:
    """One purchase of each user."""
    values = {
        user: Interaction(
            event_id=f"{user}-{number}",
            user_id=user,
            item_id=ITEMS[number % 3],
            type="purchase",
            timestamp=NOW + number * 60_000,
        ).to_json()
        for user in users
    }
    send(settings, "interactions", values)


@contextmanager
def worker(
    settings: Settings, number: int, program: tuple[str, ...] = ("-m", "streams.tracker")
) -> Iterator[subprocess.Popen[bytes]]:
    log = settings.data_dir / f"worker-{number}.log"
    environment = {**os.environ, **role_environment(settings), "PALATE_WORKER": str(number)}
    with log.open("ab") as output:
        running = subprocess.Popen(
            [sys.executable, *program], env=environment, stdout=output, stderr=output
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def count(settings: Settings, number: int, outcome: str) -> float:
    """Events of this outcome in a worker's metrics."""
    return total(samples(settings, number), "palate_events_total", outcome=outcome)


def samples(settings: Settings, number: int) -> list[MetricLine]:
    """A worker's metrics; none while it does not answer."""
    port = settings.metrics.tracker_port + number
    return scrape(f"http://{settings.metrics.host}:{port}")


def lists(settings: Settings) -> dict[str, int]:
    """User → the greatest offset that one of the user's lists takes into account."""
    found = [
        Recommendation.model_validate_json(record.value)
        for record in records(settings, "recommendations")
    ]
    return {one.user_id: one.applied_offset for one in sorted(found, key=_applied)}


def _applied(made: Recommendation) -> int:
    return made.applied_offset


def event_ids(settings: Settings) -> dict[str, list[str]]:
    """User → events in the history, by the changelog."""
    users = tracker_state(settings).users
    return {name: [entry.event_id for entry in user.history] for name, user in users.items()}


def test_the_surviving_worker_takes_over_users_with_their_state(settings: Settings) -> None:
    with worker(settings, 1) as survivor:
        with worker(settings, 0) as killed:
            until(lambda: ready(settings, 0) and ready(settings, 1), "both workers ready")
            buy(settings, 0, USERS)
            until(lambda: lists(settings).keys() == set(USERS), "all users served")
            shares = [count(settings, number, "applied") for number in (0, 1)]
            assert min(shares) > 0
            assert sum(shares) == len(USERS)
            killed.kill()
            buy(settings, 1, USERS)
        expected = {user: [f"{user}-0", f"{user}-1"] for user in USERS}
        until(lambda: event_ids(settings) == expected, lambda: f"taken over: {event_ids(settings)}")
        applied = {n: u.head.applied for n, u in tracker_state(settings).users.items()}
        until(lambda: lists(settings) == applied, "all users served by the survivor")
        assert survivor.poll() is None
        with worker(settings, 0):
            until(lambda: ready(settings, 0), "the killed worker is back")
            buy(settings, 2, USERS)
            until(lambda: count(settings, 0, "applied") > 0, "the worker has its share again")
            until(lambda: all(len(ids) == 3 for ids in event_ids(settings).values()), "all applied")
    asked = [
        ProfileRequest.model_validate_json(record.value)
        for record in records(settings, "profile-requests")
    ]
    assert {one.user_id for one in asked} == set(USERS)


def ready(settings: Settings, number: int) -> bool:
    return total(samples(settings, number), "palate_table_version") > 0


def test_what_was_not_committed_when_the_worker_died_is_done_once(settings: Settings) -> None:
    with worker(settings, 0, ("-c", NEVER_COMMITTING)):
        buy(settings, 0, ["ada"])
        until(lambda: count(settings, 0, "applied") == 1, "applied, and never committed")
        assert lists(settings) == {}
    assert event_ids(settings) == {}
    with worker(settings, 0):
        until(lambda: event_ids(settings) == {"ada": ["ada-0"]}, "the event is applied again")
        until(lambda: lists(settings).keys() == {"ada"}, "and a list is sent")
        assert count(settings, 0, "applied") == 1


def test_a_worker_serves_where_no_models_are_installed(settings: Settings) -> None:
    with worker(settings, 0, ("-c", WITHOUT_MODELS)):
        until(lambda: ready(settings, 0), "ready")
        buy(settings, 0, USERS)
        until(lambda: lists(settings).keys() == set(USERS), "all users served")


class Flow:
    """Rounds of purchases of all users, one after the other until it is left."""

    def __init__(self, settings: Settings) -> None:
        self.rounds = 0
        self._settings, self._over = settings, threading.Event()
        self._thread = threading.Thread(target=self._buy)

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _buy(self) -> None:
        while not self._over.is_set():
            buy(self._settings, self.rounds, USERS)
            self.rounds += 1

    def until_applied(self) -> None:
        """Wait until all users have what was sent before this call, and two rounds more."""
        due = self.rounds + 2
        until(lambda: rounds_applied(self._settings) >= due, lambda: f"round {due} applied")


def rounds_applied(settings: Settings) -> int:
    """How many rounds all users have in their histories."""
    return min((len(ids) for ids in event_ids(settings).values()), default=0)


@pytest.mark.parametrize("survivor_dies", [False, True])
def test_a_worker_suspended_in_the_middle_of_its_work_spoils_nothing(
    settings: Settings, survivor_dies: bool
) -> None:
    with worker(settings, 1) as survivor, worker(settings, 0) as suspended:
        until(lambda: ready(settings, 0) and ready(settings, 1), "both workers ready")
        with Flow(settings) as flow:
            until(lambda: count(settings, 0, "applied") > 0, "work for the one to be suspended")
            suspended.send_signal(signal.SIGSTOP)
            flow.until_applied()
            suspended.send_signal(signal.SIGCONT)
            until(lambda: bool(samples(settings, 0)), "the worker is awake")
            if survivor_dies:
                survivor.kill()
            flow.until_applied()
        expected = {user: [f"{user}-{n}" for n in range(flow.rounds)] for user in USERS}
        until(lambda: event_ids(settings) == expected, lambda: f"applied: {event_ids(settings)}")
        applied = {n: u.head.applied for n, u in tracker_state(settings).users.items()}
        until(lambda: lists(settings) == applied, "all users served")
    for topic, number in (("recommendations", "recommendation_id"), ("profile-requests", "number")):
        assert_never_goes_back(settings, topic)
        sent = [(one.key, orjson.loads(one.value)[number]) for one in records(settings, topic)]
        assert len(sent) == len(set(sent)), f"{topic}: one was sent twice"


def assert_never_goes_back(settings: Settings, topic: str) -> None:
    """What a later record of a user knows is never less than what an earlier one knew."""
    known: dict[bytes, int] = {}
    for record in records(settings, topic):  # by partition and offset
        applied = orjson.loads(record.value)["applied_offset"]
        assert applied >= known.get(record.key, -1), f"{topic}: {record.key!r} goes back"
        known[record.key] = applied


def test_a_suspended_worker_that_wakes_up_takes_nothing_back(settings: Settings) -> None:
    with worker(settings, 1), worker(settings, 0) as suspended:
        until(lambda: ready(settings, 0) and ready(settings, 1), "both workers ready")
        buy(settings, 0, USERS)
        until(lambda: lists(settings).keys() == set(USERS), "all users served")
        suspended.send_signal(signal.SIGSTOP)
        buy(settings, 1, USERS)
        buy(settings, 2, USERS)
        expected = {user: [f"{user}-{number}" for number in range(3)] for user in USERS}
        until(lambda: event_ids(settings) == expected, lambda: f"applied: {event_ids(settings)}")
        suspended.send_signal(signal.SIGCONT)
        until(lambda: bool(samples(settings, 0)), "the worker is awake")
        buy(settings, 3, USERS)
        expected = {user: [f"{user}-{number}" for number in range(4)] for user in USERS}
        until(lambda: event_ids(settings) == expected, lambda: f"applied: {event_ids(settings)}")


def test_a_topic_made_again_while_the_worker_runs_ends_it(settings: Settings) -> None:
    with worker(settings, 0) as running:
        until(lambda: ready(settings, 0), "ready")
        buy(settings, 0, USERS)
        until(lambda: lists(settings).keys() == set(USERS), "all users served")
        asyncio.run(make_again(settings, "interactions"))
        until(lambda: running.poll() is not None, "ended")
        assert running.returncode == 1
    log = (settings.data_dir / "worker-0.log").read_text()
    assert f"{settings.topic('interactions')} was deleted and made again" in log
    assert {name: len(ids) for name, ids in event_ids(settings).items()} == dict.fromkeys(USERS, 1)


def test_a_changelog_that_was_lost_is_made_again_from_the_topic(settings: Settings) -> None:
    """From as much of it as Kafka holds from the beginning on; the rest is for a rebuild."""
    with worker(settings, 0) as running:
        until(lambda: ready(settings, 0), "ready")
        for number in range(3):
            buy(settings, number, USERS)
        send(settings, "profile-edits", {USERS[0]: forget(USERS[0]).to_json()})
        expected = {user: [f"{user}-{number}" for number in range(3)] for user in USERS}
        expected[USERS[0]] = []
        until(lambda: event_ids(settings) == expected, lambda: f"applied: {event_ids(settings)}")
        running.send_signal(signal.SIGTERM)  # so that it commits what it has read
        running.wait()
    asyncio.run(delete_topic(settings, CHANGELOG))
    with worker(settings, 0):  # and nothing new comes
        until(lambda: event_ids(settings) == expected, lambda: f"applied: {event_ids(settings)}")


def forget(user: str) -> ProfileEdit:
    return ProfileEdit(edit_id=f"forget-{user}", user_id=user, action="forget", timestamp=NOW)


def test_a_changelog_that_was_lost_is_no_first_start(settings: Settings) -> None:
    with worker(settings, 0) as running:
        until(lambda: ready(settings, 0), "ready")
        buy(settings, 0, USERS)
        until(lambda: lists(settings).keys() == set(USERS), "all users served")
        running.send_signal(signal.SIGTERM)
        running.wait()
    asyncio.run(delete_topic(settings, CHANGELOG))
    asyncio.run(expire(settings, "interactions"))
    with worker(settings, 0) as running:
        until(lambda: running.poll() is not None, "refused")
        assert running.returncode == 1
    log = (settings.data_dir / "worker-0.log").read_text()
    assert "its changelog was lost" in log
    assert "run `palate rebuild`" in log


def test_a_changelog_that_is_deleted_ends_the_worker(settings: Settings) -> None:
    with worker(settings, 0) as running:
        until(lambda: ready(settings, 0), "ready")
        asyncio.run(delete_topic(settings, CHANGELOG))
        until(lambda: running.poll() is not None, "ended")
        assert running.returncode == 1
    log = (settings.data_dir / "worker-0.log").read_text()
    assert f"{settings.topic(CHANGELOG)} was deleted" in log


async def expire(settings: Settings, name: str) -> None:
    """What retention does, of all that there is."""
    topic = settings.topic(name)
    async with producer(settings) as sender:
        places = [TopicPartition(topic, n) for n in await sender.partitions_for(topic)]
    async with consumer(settings, (), None) as reader:
        ends = await reader.end_offsets(places)
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    await admin.delete_records({place: RecordsToDelete(end) for place, end in ends.items()})
    await admin.close()

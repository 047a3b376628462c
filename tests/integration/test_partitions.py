"""Whoever owns a partition last has all that was committed, and nobody else writes any more."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka.errors import ProducerFenced
from prometheus_client import CollectorRegistry

from models.errors import PartitionLost, StackError, StoreDamaged, TopicError
from models.settings import Settings
from streams.changelog import read_changelog
from streams.kafka.read_at import Rereader
from streams.kafka.topics import ensure_changelog, ensure_topics
from streams.metrics import TrackerMetrics
from streams.tracker import partition_writer
from streams.tracker.local_store import LocalStore
from streams.tracker.partition_takeover import Partitions
from streams.tracker.partition_writer import Output, OutputsRefused
from tests.conftest import MakeSettings
from tests.patience import HANG_S
from tests.records import records

pytestmark = pytest.mark.service
P = 0


@pytest.fixture
def settings(kafka: str, make_settings: MakeSettings) -> Settings:
    made = make_settings(kafka={"session_timeout_s": 6.0})
    asyncio.run(ensure_topics(made))
    return made


class Worker:
    """The partitions of one worker, without agents."""

    def __init__(
        self, settings: Settings, number: int, on_acquired: Callable[[int], None] = lambda _: None
    ) -> None:
        self.lost: list[Exception] = []
        self.acquired: list[int] = []
        self._then = on_acquired
        self.metrics = TrackerMetrics(CollectorRegistry())
        self.partitions = Partitions(
            settings,
            number,
            self.metrics,
            self._on_acquired,
            lambda _, error: self.lost.append(error),
        )

    async def _on_acquired(self, partition: int) -> None:
        self.acquired.append(partition)
        self._then(partition)

    async def put(self, key: str, value: str) -> None:
        """Change the state and send a message about it."""
        self.partitions.write(P, [(key.encode(), value.encode())])
        self.partitions.send(P, Output(self.topic, key.encode(), value.encode(), 0))
        await self.partitions.committed([P])

    def get(self, key: str) -> bytes | None:
        return self.partitions.get(P, key.encode())


@asynccontextmanager
async def workers(settings: Settings, count: int) -> AsyncIterator[list[Worker]]:
    topic_id = await ensure_changelog(settings)
    made = [Worker(settings, number) for number in range(count)]
    for one in made:
        one.topic = settings.topic("recommendations")
        one.partitions.start(topic_id)
    try:
        yield made
    finally:
        for one in made:
            await one.partitions.stop()


def sent(settings: Settings) -> list[bytes]:
    return [record.value for record in records(settings, "recommendations")]


def test_a_new_owner_reads_what_was_committed_and_the_former_one_writes_nothing(settings) -> None:
    async def scenario() -> None:
        async with workers(settings, 2) as (former, new):
            await former.partitions.acquire([P])
            await former.put("ua", "1")
            await new.partitions.acquire([P])
            assert new.get("ua") == b"1"
            with pytest.raises(PartitionLost) as lost:
                await former.put("ua", "of the former owner")
            assert isinstance(lost.value.why, ProducerFenced)
            await new.put("ub", "2")

    asyncio.run(scenario())
    assert asyncio.run(read_changelog(settings, P)) == {b"ua": b"1", b"ub": b"2"}
    assert sent(settings) == [b"1", b"2"]


def test_what_is_put_a_moment_later_goes_into_the_same_transaction(settings, monkeypatch) -> None:
    monkeypatch.setattr(partition_writer, "LINGER_S", 0.5)

    async def scenario() -> float:
        async with workers(settings, 1) as (owner,):
            await owner.partitions.acquire([P])
            begun = owner.metrics.transactions._value.get()
            owner.partitions.write(P, [(b"ua", b"1")])
            for _ in range(5):  # the loop goes on
                await asyncio.sleep(0)
            await owner.put("ub", "2")
            return owner.metrics.transactions._value.get() - begun

    assert asyncio.run(scenario()) == 1
    assert asyncio.run(read_changelog(settings, P)) == {b"ua": b"1", b"ub": b"2"}


def test_what_was_put_before_the_partition_was_given_up_is_not_committed(settings) -> None:
    async def scenario() -> None:
        async with workers(settings, 1) as (owner,):
            await owner.partitions.acquire([P])
            owner.partitions.write(P, [(b"ua", b"half done")])
            await asyncio.sleep(0)
            owner.partitions.lose(P, ValueError("the rest of the batch failed"))
            await asyncio.sleep(10 * partition_writer.LINGER_S)

    asyncio.run(scenario())
    assert asyncio.run(read_changelog(settings, P)) == {}


def test_what_was_put_and_not_committed_is_gone_with_the_owner(settings) -> None:
    async def scenario() -> None:
        async with workers(settings, 2) as (former, new):
            await former.partitions.acquire([P])
            await former.put("ua", "1")
            await new.partitions.acquire([P])  # before the former one's next commit
            former.partitions.write(P, [(b"ua", b"2")])
            assert former.get("ua") == b"2"  # it does not know yet
            with pytest.raises(PartitionLost):
                await former.partitions.committed([P])
            await new.partitions.leave()
            await former.partitions.acquire([P])
            assert former.get("ua") == b"1"

    asyncio.run(scenario())


def test_a_fenced_owner_takes_the_partition_back_once_it_must_know_its_assignment(settings) -> None:
    async def scenario() -> None:
        async with workers(settings, 2) as (owner, sleeper):
            await owner.partitions.acquire([P])
            await sleeper.partitions.acquire([P])  # suspended in the middle, and awake again
            with pytest.raises(PartitionLost):
                await owner.put("ua", "1")
            assert not owner.partitions.complete
            await sleeper.partitions.leave()
            await owner.partitions.owned([P])
            await owner.put("ua", "1")
            assert owner.acquired == [P, P]

    asyncio.run(scenario())
    assert sent(settings) == [b"1"]


def test_whoever_owns_it_in_whatever_order_state_is_what_was_committed(settings) -> None:
    """Owners change, die with their folder or without, and are back with an old folder."""
    chance, model = random.Random(20261127), {}
    # A former owner that notices by a write of its own takes the partition back after this time.
    patient = settings.kafka.model_copy(update={"session_timeout_s": 600.0})
    settings = settings.model_copy(update={"kafka": patient})

    async def scenario() -> None:
        async with workers(settings, 3) as made:
            for step in range(40):
                owner = chance.choice(made)
                await owner.partitions.acquire([P])
                assert {key: owner.get(key) for key in model} == model
                stored = dict(owner.partitions.scan(P, b"u"))
                assert stored == {key.encode(): value for key, value in model.items()}
                for _ in range(chance.randrange(4)):
                    key, value = f"u{chance.randrange(6)}", f"{step}"
                    await owner.put(key, value)
                    model[key] = value.encode()
                if chance.random() < 0.3:  # what is not waited for may or may not be committed
                    key = f"x{step}"
                    owner.partitions.write(P, [(key.encode(), b"?")])
                if chance.random() < 0.2:
                    await owner.partitions.leave()
                    shutil.rmtree(folder_of(owner))

    asyncio.run(scenario())
    assert {
        key.decode(): value
        for key, value in asyncio.run(read_changelog(settings, P)).items()
        if key.startswith(b"u")
    } == model


def folder_of(worker: Worker):
    return worker.partitions._folder_of(P)


def test_a_store_that_cannot_be_read_is_made_again_from_the_changelog(
    settings, monkeypatch
) -> None:
    async def scenario() -> None:
        async with workers(settings, 1) as [owner]:
            await owner.partitions.acquire([P])
            await owner.put("ua", "1")
            store = owner.partitions._writers[P].store
            with monkeypatch.context() as patch:
                patch.setattr(store, "get", damaged)
                with pytest.raises(PartitionLost):
                    owner.get("ub")
            await owner.partitions.owned([P])
            assert owner.get("ua") == b"1"

    asyncio.run(scenario())


def damaged(_: bytes) -> bytes:
    raise StoreDamaged("local state: Corruption: block checksum mismatch")


def test_a_message_that_kafka_refuses_names_itself_and_takes_the_transaction_along(
    settings,
) -> None:
    async def scenario() -> None:
        async with workers(settings, 1) as [owner]:
            await owner.partitions.acquire([P])
            owner.partitions.write(P, [(b"ua", b"1")])
            owner.partitions.send(P, Output(owner.topic, b"ua", bytes(14 << 20), 0))
            with pytest.raises(PartitionLost) as lost:
                await owner.partitions.committed([P])
            assert isinstance(lost.value.why, OutputsRefused)
            assert [output.key for output in lost.value.why.outputs] == [b"ua"]
            await owner.partitions.owned([P])
            assert owner.get("ua") is None

    asyncio.run(scenario())
    assert sent(settings) == []


def test_what_the_role_refuses_when_it_reads_the_state_reaches_the_role(settings) -> None:
    async def scenario() -> None:
        def refuse(_: int) -> None:
            raise TopicError("the topic was made anew")

        async with workers(settings, 1) as [owner]:
            owner._then = refuse
            with pytest.raises(TopicError):
                await owner.partitions.acquire([P])

    asyncio.run(scenario())


def test_a_refusal_while_a_partition_is_taken_over_again_ends_the_role(settings) -> None:
    async def scenario() -> None:
        def refuse(_: int) -> None:
            raise TopicError("the topic was made anew")

        async with workers(settings, 1) as [owner]:
            await owner.partitions.acquire([P])
            owner._then = refuse
            owner.partitions._writers[P].lose(OSError("the broker is away"))
            with pytest.raises(TopicError):
                async with asyncio.timeout(HANG_S):
                    await owner.partitions.failed()

    asyncio.run(scenario())


def test_a_revocation_in_the_middle_of_a_recovery_leaves_no_half_of_the_state(
    settings, monkeypatch
) -> None:
    names = [f"u{number}" for number in range(8)]

    async def scenario() -> None:
        async with workers(settings, 2) as (former, new):
            await former.partitions.acquire([P])
            for name in names:
                await former.put(name, name)
            new.partitions._reader = Rereader(settings, max_poll_records=2)
            true, leaving = LocalStore.apply, []

            def apply(store, changes, next_offset):
                true(store, changes, next_offset)
                if not leaving:
                    leaving.append(asyncio.ensure_future(new.partitions.leave()))

            with monkeypatch.context() as patch:
                patch.setattr(LocalStore, "apply", apply)
                await new.partitions.acquire([P])
                await asyncio.gather(*leaving)
            assert P not in new.partitions
            assert new.acquired == []
            await new.partitions.acquire([P])
            assert [new.get(name) for name in names] == [name.encode() for name in names]

    asyncio.run(scenario())


def test_a_fenced_owner_that_is_revoked_at_once_can_own_the_partition_again(settings) -> None:
    async def scenario() -> None:
        async with workers(settings, 2) as (former, new):
            await former.partitions.acquire([P])
            await new.partitions.acquire([P])
            with pytest.raises(PartitionLost):
                await former.put("ua", "1")
            await former.partitions.leave()  # while its producer and its folder are being closed
            await former.partitions.acquire([P])
            await former.put("ua", "2")

    asyncio.run(scenario())
    assert sent(settings) == [b"2"]


def test_state_that_kafka_refuses_ends_the_role_and_is_named(settings) -> None:
    async def scenario() -> None:
        async with workers(settings, 1) as [owner]:
            await owner.partitions.acquire([P])
            owner.partitions.write(P, [(b"ua", bytes(14 << 20))])
            with pytest.raises(TopicError, match="refuses state of 14680064 bytes under key b'ua'"):
                await owner.partitions.failed()

    asyncio.run(scenario())


def test_a_second_worker_with_the_number_of_one_that_runs_is_refused(settings):
    async def scenario() -> None:
        async with workers(settings, 1):
            with pytest.raises(StackError, match="needs a worker number of its own"):
                async with workers(settings, 1):
                    pass

    asyncio.run(scenario())

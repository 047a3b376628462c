"""The tracker on a real broker and RocksDB, in this process; only the vectors are in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import orjson
import pytest
from prometheus_client import CollectorRegistry

from models.fakes import HashEmbedder, MemoryIndex
from models.ports import VectorRow
from models.schemas import (
    Interaction,
    Item,
    Profile,
    ProfileEdit,
    ProfileRequest,
    Recommendation,
    ReleaseAnnouncement,
    Sections,
    Sentence,
    to_rfc3339,
)
from models.settings import Settings
from streams.codec import KEY_BYTES, partition_for
from streams.kafka.clients import consumer, producer
from streams.kafka.topics import ensure_topics
from streams.metrics import TrackerMetrics
from streams.tracker import partition_writer, runtime
from streams.tracker.role import TrackerRole
from tests.patience import Deadline

pytestmark = pytest.mark.service
NOW = 1_300_000_000_000


def interaction(number: int, user: str = "ada", item: str = "tea", **fields: object) -> Interaction:
    values = {"event_id": f"e{number}", "user_id": user, "item_id": item, "type": "purchase"}
    return Interaction.model_validate(values | {"timestamp": NOW + number * 1000} | fields)


def index_of(*titles: str) -> MemoryIndex:
    index = MemoryIndex()
    put(index, *titles)
    return index


def put(index: MemoryIndex, *titles: str) -> None:
    vectors = HashEmbedder().embed(titles)
    index.upsert(
        "items@base-0",
        [
            VectorRow(title, vector, title, n, {})
            for n, (title, vector) in enumerate(zip(titles, vectors, strict=True))
        ],
    )


class Wire:
    """Sends to the tracker's topics and reads what comes out."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.got: dict[str, list] = {
            "recommendations": [],
            "profile-requests": [],
            "dead-letters": [],
            "profiles": [],
        }

    async def send(self, topic: str, key: str, value: bytes | None, **options) -> None:
        await self.producer.send_and_wait(
            self.settings.topic(topic), value, key=key.encode(), **options
        )

    async def interact(self, *interactions: Interaction) -> None:
        for one in interactions:
            await self.send("interactions", one.user_id, one.to_json())

    def recommendations(self, user: str) -> list[Recommendation]:
        rows = self.got["recommendations"]
        found = [Recommendation.model_validate_json(row.value) for row in rows]
        return [one for one in found if one.user_id == user]

    def requests(self, user: str) -> list[ProfileRequest]:
        rows = self.got["profile-requests"]
        found = [ProfileRequest.model_validate_json(row.value) for row in rows]
        return [one for one in found if one.user_id == user]

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = Deadline()
        while not condition():
            assert not deadline.over(), f"in vain: {self.got}"
            await asyncio.sleep(0.05)

    async def read(self) -> None:
        async for row in self.consumer:
            self.got[row.topic.removeprefix(self.settings.kafka.prefix)].append(row)


@asynccontextmanager
async def wired(settings: Settings):
    await ensure_topics(settings)
    wire = Wire(settings)
    wire.producer = producer(settings)
    wire.consumer = consumer(settings, wire.got, None)
    await wire.producer.start()
    await wire.consumer.start()
    serving = ReleaseAnnouncement(release="base-0", status="serving", at=NOW)
    await wire.send("releases", "base-0", serving.to_json())
    for title in ("tea", "teapot", "spoon"):
        await wire.send("items", title, Item(item_id=title, title=f"{title} of silver").to_json())
    reading = asyncio.create_task(wire.read())
    try:
        yield wire
    finally:
        reading.cancel()
        await wire.producer.stop()
        await wire.consumer.stop()


@asynccontextmanager
async def tracking(settings: Settings, index: MemoryIndex, worker: int = 0):
    registry = CollectorRegistry()
    metrics = TrackerMetrics(registry)
    role = TrackerRole(settings, worker=worker, index=index, metrics=metrics)
    stop = asyncio.Event()
    running = asyncio.create_task(role.run(stop))
    try:
        yield role
    finally:
        stop.set()
        await running


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())


def test_events_become_a_request_and_recommendations_with_reasons(kafka, make_settings):
    settings = make_settings()

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea", "teapot", "spoon")):
            await wire.interact(interaction(1))
            await wire.until(lambda: wire.recommendations("ada") and wire.requests("ada"))
            made, request = wire.recommendations("ada")[0], wire.requests("ada")[0]
            assert {item.item_id for item in made.items} == {"tea", "teapot", "spoon"}
            assert (made.trigger, made.release, made.profile_id) == ("event", "base-0", None)
            assert (request.rule, request.number) == ("first", 1)
            assert [entry.text for entry in request.windows.short] == ["tea of silver"]
            await wire.send("profiles", "ada", profile_for(request).to_json())
            await wire.until(lambda: wire.recommendations("ada")[-1].profile_id == "p1")
            assert wire.recommendations("ada")[-1].trigger == "profile"

    run(scenario)


def test_fausts_own_search_for_stuck_streams_ends_no_worker(kafka, make_settings, monkeypatch):
    settings = make_settings()

    def search(*_) -> None:
        raise AssertionError("a partition without a position, in the middle of a rebalance")

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea")) as role:
            await wire.until(lambda: role.assignment.generation and role.partitions.complete)
            faust = role.runtime._app.consumer
            monkeypatch.setattr(faust._thread, "verify_event_path", search)
            assert faust.assignment()
            for tp in faust.assignment():
                faust.verify_event_path(time.monotonic(), tp)

    run(scenario)


def test_events_that_come_before_the_catalogue_get_their_list_when_it_is_there(
    kafka, make_settings
):
    settings, index = make_settings(), MemoryIndex()

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index):
            await wire.interact(interaction(1))
            await wire.until(lambda: wire.requests("ada"))
            assert wire.recommendations("ada") == []
            put(index, "tea", "teapot", "spoon")
            await wire.until(lambda: wire.recommendations("ada"))
            assert len(wire.recommendations("ada")[0].items) == 3

    run(scenario)


def test_a_list_owed_while_partitions_are_given_back_does_not_keep_the_loop_from_turning(
    kafka, make_settings, monkeypatch
):
    settings, stop_producer, tries = make_settings(), partition_writer.stop_producer, 0

    async def slowly(stopping) -> None:
        await asyncio.sleep(0.5)
        await stop_producer(stopping)

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea")) as role:
            await wire.interact(interaction(1))
            await wire.until(lambda: wire.recommendations("ada"))
            partition = partition_for(b"ada", settings.kafka.partitions)
            serve = role.recommender.serve

            async def counted(clocks) -> int:
                nonlocal tries
                tries += 1
                assert tries < 1_000, "it is tried without end, and nobody else has a turn"
                return await serve(clocks)

            role.recommender.serve = counted
            leaving = asyncio.create_task(role.assignment.on_revoked())
            await wire.until(lambda: partition not in role.partitions)
            role.working_set.users.forget_cached(partition)
            role.working_set.waiting.add((partition, "ada"), at_once=True)
            await leaving

    monkeypatch.setattr(partition_writer, "stop_producer", slowly)
    run(scenario)


def test_events_that_faust_passes_over_are_applied_all_the_same(kafka, make_settings, monkeypatch):
    """As around a rebalance: some records are dropped, and only later ones are delivered."""
    settings, dropped = make_settings(kafka={"partitions": 1}), {2, 3, 5}
    delivered = runtime.batches

    async def leaky(app, stream):
        async for events in delivered(app, stream):
            kept = [
                event
                for event in events
                if event.message.topic != settings.topic("interactions")
                or event.message.offset not in dropped
            ]
            runtime.Batch([event for event in events if event not in kept]).acknowledge()
            if kept:
                yield kept

    monkeypatch.setattr(runtime, "batches", leaky)

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea", "cup")) as role:
            for number in range(8):
                await wire.interact(interaction(number))
            await wire.until(lambda: role.working_set.next_offsets.get(0, [0])[0] == 8)
            history = role.working_set.users.get(0, "ada").history
            assert [entry.event_id for entry in history] == [f"e{n}" for n in range(8)]

    run(scenario)


def profile_for(request: ProfileRequest, **fields: object) -> Profile:
    values = {
        "profile_id": "p1",
        "user_id": request.user_id,
        "version": request.number,
        "as_of": request.as_of,
        "sections": Sections(stable=(Sentence(text="Tea."),)),
        "text": "Tea.",
        "release": "base-0",
        "model": "m",
        "request_id": request.request_id,
        "rule": request.rule,
        "prompt_version": "1",
        "prompt_hash": "h",
        "windows_hash": request.windows_hash,
        "applied_offset": request.applied_offset,
        "vector": tuple(map(float, HashEmbedder().embed(["tea"])[0])),
        "vector_release": "base-0",
        "created_at": NOW,
    }
    return Profile.model_validate(values | fields)


def test_a_restarted_tracker_serves_what_is_owed_and_nothing_twice(kafka, make_settings):
    settings = make_settings()

    async def scenario() -> None:
        async with wired(settings) as wire:
            async with tracking(settings, index_of("tea")):
                await wire.interact(interaction(1))
                await wire.until(lambda: wire.recommendations("ada") and wire.requests("ada"))
            await wire.interact(interaction(2, "bob"), interaction(1))
            async with tracking(settings, index_of("tea")) as role:
                await wire.until(lambda: wire.recommendations("bob") and wire.requests("bob"))
                await wire.until(
                    lambda: role.metrics.events.labels("purchase", "duplicate")._value.get()
                )
            assert len(wire.recommendations("ada")) == 1
            assert len(wire.requests("ada")) == 1

    run(scenario)


def test_state_comes_back_from_the_changelog_on_another_machine(kafka, make_settings):
    settings = make_settings()

    async def scenario() -> None:
        async with wired(settings) as wire:
            async with tracking(settings, index_of("tea")):
                await wire.interact(*(interaction(n) for n in range(40)))
                await wire.until(lambda: wire.recommendations("ada"))
                await wire.until(lambda: wire.recommendations("ada")[-1].applied_offset == 39)
            async with tracking(settings, index_of("tea"), worker=1) as role:
                partition = partition_for(b"ada", settings.kafka.partitions)
                await wire.until(lambda: partition in role.working_set)
                assert len(role.working_set.users.get(partition, "ada").history) == 40
                assert role.working_set.users.get(partition, "ada").head.applied == 39

    run(scenario)


def test_a_file_sorted_by_user_gives_each_a_profile_of_their_own_time(kafka, make_settings):
    settings = make_settings(kafka={"partitions": 1})
    years = {"ada": 2009, "bob": 2013, "cleo": 2001}

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea")) as role:
            for number, (user, year) in enumerate(years.items()):
                for day in range(1, 5):
                    at = f"{year}-03-0{day}T10:00:00Z"
                    await wire.interact(interaction(10 * number + day, user, timestamp=at))
            await wire.until(lambda: all(wire.requests(user) for user in years))
            for user, year in years.items():
                request = wire.requests(user)[-1]
                assert len(request.windows.medium) == 4
                assert to_rfc3339(request.as_of).startswith(f"{year}-03-04")
            far_ahead = role.metrics.events_far_ahead.labels(partition="0")
            assert far_ahead._value.get() == 4  # bob's

    run(scenario)


def test_bad_events_become_dead_letters_and_stop_nothing(kafka, make_settings):
    settings = make_settings()
    future = interaction(3, timestamp=to_rfc3339(int(time.time() * 1000) + 3_600_000))
    bad = {
        "not_json": b"\xff\xfe{",
        "invalid": orjson.dumps({"event_id": "x", "user_id": "ada", "type": "stare"}),
        "empty": None,
        "too_large": b'{"review":"' + b"x" * 10_000_000 + b'"}',
        "future": future.to_json(),
    }

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea")):
            for value in bad.values():
                await wire.send("interactions", "ada", value)
            await wire.interact(interaction(1))
            await wire.until(lambda: wire.recommendations("ada"))
            await wire.until(lambda: len(wire.got["dead-letters"]) == len(bad))
            letters = [dict(row.headers) for row in wire.got["dead-letters"]]
            assert sorted(one["palate-reason"].decode() for one in letters) == sorted(bad)
            assert max(len(row.value or b"") for row in wire.got["dead-letters"]) == 256 * 1024

    run(scenario)


def test_keys_and_headers_as_long_as_a_batch_stop_nothing(kafka, make_settings):
    """The broker's limit is on the compressed batch: what it takes may be much longer."""
    settings = make_settings()
    long = b"a" * 13 * 2**20

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea")):
            compressing = producer(settings, compression_type="gzip", max_request_size=40 * 2**20)
            async with compressing as other:
                for topic in ("interactions", "profile-edits"):
                    await other.send_and_wait(settings.topic(topic), b"not json", key=long)
                await other.send_and_wait(settings.topic("profiles"), None, key=long)
                await other.send_and_wait(
                    settings.topic("interactions"),
                    interaction(1).to_json(),
                    key=b"somebody-else",
                    headers=[("blob", long), ("trace", b"1")],
                )
            await wire.until(lambda: wire.recommendations("ada"))
            await wire.until(lambda: len(wire.got["dead-letters"]) == 3)
            letters = [(row.key, dict(row.headers)) for row in wire.got["dead-letters"]]
            assert {key for key, _ in letters} == {long[:KEY_BYTES]}
            assert {told["palate-key-size"] for _, told in letters} == {b"%d" % len(long)}
            reasons = sorted(told["palate-reason"] for _, told in letters)
            assert reasons == [b"not_json", b"not_json", b"wrong_key"]

    run(scenario)


def test_an_event_under_a_wrong_key_is_sent_on_once_and_counts(kafka, make_settings):
    settings = make_settings()

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea")):
            await wire.send("interactions", "somebody-else", interaction(1).to_json())
            await wire.until(lambda: wire.recommendations("ada"))
            home = partition_for(b"ada", settings.kafka.partitions)
            await wire.send(
                "interactions", "ada", interaction(2).to_json(), partition=(home + 1) % 4
            )
            await wire.until(lambda: len(wire.recommendations("ada")) >= 2)
            assert wire.got["dead-letters"] == []

    run(scenario)


def test_a_vector_of_another_release_is_never_mixed_in(kafka, make_settings):
    settings = make_settings()

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea", "spoon")):
            await wire.interact(interaction(1))
            await wire.until(lambda: wire.requests("ada"))
            foreign = profile_for(wire.requests("ada")[0], vector_release="other")
            await wire.send("profiles", "ada", foreign.to_json())
            await wire.interact(interaction(2))
            await wire.until(lambda: len(wire.recommendations("ada")) == 2)
            made = wire.recommendations("ada")[-1]
            assert (made.trigger, made.profile_id) == ("event", None)
            assert np.isclose(made.items[0].parts.get("profile", 0.0), 0.0)

    run(scenario)


def test_the_vector_that_the_index_has_for_a_profile_takes_the_place_of_another_releases(
    kafka, make_settings
):
    settings, index = make_settings(), index_of("tea", "spoon")

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index):
            await wire.interact(interaction(1))
            await wire.until(lambda: wire.requests("ada"))
            vector = HashEmbedder().embed(["tea"])[0]
            row = VectorRow("ada", vector, "Tea.", 0, {"profile_id": "p1"})
            index.upsert("profiles@base-0", [row])
            liking = Sections(stable=(Sentence(text="Tea.", items=("tea",)),))
            other = {"vector_release": "other", "vector": (1.0, 0.0), "sections": liking}
            foreign = profile_for(wire.requests("ada")[0], **other)
            await wire.send("profiles", "ada", foreign.to_json())
            await wire.until(lambda: wire.recommendations("ada")[-1].profile_id == "p1")
            made = wire.recommendations("ada")[-1]
            part = {item.item_id: item.parts["profile"] for item in made.items}["tea"]
            assert (made.trigger, round(part, 2)) == ("profile", settings.ranking.profile)

    run(scenario)


def test_a_vector_that_only_claims_to_be_of_the_release_is_not_used(kafka, make_settings):
    settings = make_settings()

    async def scenario() -> None:
        async with wired(settings) as wire, tracking(settings, index_of("tea", "spoon")):
            await wire.interact(interaction(1))
            await wire.until(lambda: wire.requests("ada"))
            false = profile_for(wire.requests("ada")[0], vector=(1.0, 0.0))
            await wire.send("profiles", "ada", false.to_json())
            await wire.until(lambda: wire.recommendations("ada")[-1].profile_id == "p1")
            parts = wire.recommendations("ada")[-1].items[0].parts
            assert np.isclose(parts.get("profile", 0.0), 0.0)

    run(scenario)


def test_what_a_user_asked_to_be_forgotten_stays_out_of_state_topic_and_lists(kafka, make_settings):
    settings = make_settings()
    partition = partition_for(b"ada", settings.kafka.partitions)

    async def scenario() -> None:
        index = index_of("tea", "teapot", "spoon")
        async with wired(settings) as wire, tracking(settings, index) as role:
            await wire.interact(interaction(1))
            await wire.until(lambda: wire.recommendations("ada") and wire.requests("ada"))
            before = profile_for(wire.requests("ada")[0])
            await wire.send("profiles", "ada", before.to_json())
            await wire.until(lambda: wire.recommendations("ada")[-1].profile_id)
            wish = ProfileEdit(edit_id="w", user_id="ada", action="forget", timestamp=NOW + 5_000)
            await wire.send("profile-edits", "ada", wish.to_json())
            await wire.until(lambda: wire.recommendations("ada")[-1].edits_offset == 0)
            await wire.until(lambda: wire.got["profiles"][-1].value is None)  # the tombstone
            await wire.send("profiles", "ada", before.to_json())  # it was being written meanwhile
            await wire.until(lambda: [row.value for row in wire.got["profiles"]].count(None) == 2)
            assert wire.got["profiles"][-1].value is None  # so compaction keeps nothing of it
            await wire.interact(interaction(1))  # sent again
            await wire.interact(interaction(2))  # comes late
            await wire.interact(interaction(9, item="spoon"))
            await wire.until(lambda: wire.recommendations("ada")[-1].applied_offset == 3)
            user = role.working_set.users.get(partition, "ada")
            assert [entry.event_id for entry in user.history] == ["e9"]
            assert user.profile is None
            lists = [one for one in wire.recommendations("ada") if one.edits_offset == 0]
            cited = {event for one in lists for item in one.items for event in item.reason.evidence}
            assert cited <= {"e9"}
            assert all(one.profile_id is None for one in lists)
            assert len({one.recommendation_id for one in wire.recommendations("ada")}) > 2

    run(scenario)

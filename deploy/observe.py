"""What a running Palate says about itself: its processes, its metrics, its place in Kafka."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from deploy.processes import Background
from deploy.stack import Role, Stack, fetch, readiness
from models.schemas import ReleaseAnnouncement
from models.settings import Settings

COUNTED = 500  # dead letters are counted one by one up to so many; each may be 256 KB
MARKERS = 100  # offsets at most that are looked through for a record at the end of a partition

SeriesParts = dict[str, list[Any]]  # topic without prefix → aiokafka TopicPartitions


class MetricLine(NamedTuple):
    """One line of /metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class RoleState:
    """One role as it is now."""

    name: str
    pid: int | None
    not_ready: str | None  # None: it serves
    up_s: float = 0.0
    memory_mib: float = 0.0
    samples: tuple[MetricLine, ...] = field(default=(), repr=False)


class Lag(NamedTuple):
    """Records of a topic that a consumer has not finished."""

    group: str
    topic: str
    committed: int
    end: int

    @property
    def records(self) -> int:
        """How far behind."""
        return self.end - self.committed


@dataclass(frozen=True, slots=True)
class KafkaState:
    """What the cluster holds."""

    lags: tuple[Lag, ...]
    dead_letters: int
    releases: tuple[ReleaseAnnouncement, ...]

    @property
    def serving(self) -> str | None:
        """The release in force."""
        return next((r.release for r in reversed(self.releases) if r.status == "serving"), None)


def role_states(stack: Stack) -> list[RoleState]:
    """Every role of the stack, with its metrics if it answers."""
    return [_role_state(stack, role) for role in stack.roles]


def _role_state(stack: Stack, role: Role) -> RoleState:
    background = stack.background(role)
    process = background.process()
    if process is None:
        return RoleState(role.name, None, _ended(background))
    return RoleState(
        role.name,
        process.pid,
        readiness(role),
        up_s=time.time() - process.create_time(),
        memory_mib=process.memory_info().rss / 2**20,
        samples=tuple(scrape(role.url)),
    )


def _ended(background: Background) -> str:
    """One that was told to stop left no pid file."""
    if not background.pid_file.exists():
        return "not running"
    words = background.last_words()
    return "has ended; `palate up` starts it again" + (
        f". Its last words: {words}" if words else ""
    )


def scrape(url: str) -> list[MetricLine]:
    """All samples of a role's /metrics; none if it does not answer."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        text = fetch(f"{url}/metrics").text
    except httpx.HTTPError:
        return []
    families = text_string_to_metric_families(text)
    return [MetricLine(s.name, s.labels, s.value) for family in families for s in family.samples]


def total(samples: Iterable[MetricLine], name: str, **labels: str) -> float:
    """Sum of a metric over all samples that carry these labels."""
    wanted = labels.items()
    return sum(s.value for s in samples if s.name == name and wanted <= s.labels.items())


def by_label(samples: Iterable[MetricLine], name: str, label: str) -> dict[str, float]:
    """Sum of a metric for each value of a label."""
    sums: defaultdict[str, float] = defaultdict(float)
    for sample in samples:
        if sample.name == name:
            sums[sample.labels[label]] += sample.value
    return dict(sums)


def mean(samples: Iterable[MetricLine], histogram: str) -> float | None:
    """Mean of what a histogram observed; None if nothing."""
    samples = list(samples)
    count = total(samples, f"{histogram}_count")
    return total(samples, f"{histogram}_sum") / count if count else None


async def kafka_state(settings: Settings) -> KafkaState:
    """Lags by consumer group, dead letters, releases.

    Raises StackError saying why if Kafka cannot be reached.
    """
    from aiokafka.admin import AIOKafkaAdminClient

    from streams.kafka.clients import client_options, consumer
    from streams.kafka.connectivity import answers_within, check_reachable

    await check_reachable(settings, settings.kafka.answer_within_s)
    async with answers_within(settings, settings.kafka.answer_within_s):
        admin = AIOKafkaAdminClient(**client_options(settings))
        reader = consumer(settings, (), None)
        try:
            await admin.start()
            await reader.start()
            parts = await _partitions(settings, admin)
            releases = await _releases(parts.get("releases", []), reader)
            return KafkaState(
                lags=(
                    *await _group_lags(settings, admin, reader, releases),
                    *await _log_lags(settings, parts, reader),
                ),
                dead_letters=await _size(parts.get("dead-letters", []), reader),
                releases=tuple(releases),
            )
        finally:
            await reader.stop()
            await admin.close()


async def _group_lags(
    settings: Settings, admin: Any, reader: Any, releases: list[ReleaseAnnouncement]
) -> list[Lag]:
    lags = []
    ours = our_groups(settings, releases)
    for group, *_ in await admin.list_consumer_groups():
        if group in ours:
            offsets = await admin.list_consumer_group_offsets(group)
            committed = {part: mark.offset for part, mark in offsets.items() if mark.offset >= 0}
            lags += await _by_topic(group, committed, reader)
    return sorted(lags)


def our_groups(settings: Settings, releases: Iterable[ReleaseAnnouncement]) -> set[str]:
    """The groups whose offsets say how far this deployment's roles have read.

    By their whole names: another deployment's prefix may begin like ours. The recorder's place is
    in its log, and the indexer's group of a release whose tables are gone says nothing any more.
    """
    from streams.indexer.table_sync import readers_group
    from streams.kafka.clients import group_id
    from streams.releases import ServingRelease

    known = ServingRelease()
    for step in releases:
        known.take(step)
    kept = {readers_group(settings, release) for release in known.wanted}
    return {group_id(settings, role) for role in ("tracker", "profiler")} | kept


async def _log_lags(settings: Settings, parts: SeriesParts, reader: Any) -> list[Lag]:
    """The recorder's positions are in the event log's manifests, not in Kafka."""
    from streams.event_log import LOGGED_TOPICS, SegmentLog

    log = SegmentLog(settings.log_dir)
    positions = {
        part: log.next_offset(topic, part.partition)
        for topic in LOGGED_TOPICS
        for part in parts.get(topic, [])
    }
    return await _by_topic(f"{settings.kafka.prefix}palate-recorder", positions, reader)


async def _by_topic(group: str, committed: Mapping[Any, int], reader: Any) -> list[Lag]:
    ends = await reader.end_offsets(list(committed)) if committed else {}
    behind = {part: end for part, end in ends.items() if committed[part] < end}
    ends |= await _without_markers(behind, committed, reader)
    topics = sorted({partition.topic for partition in committed})
    return [
        Lag(
            group,
            topic,
            sum(offset for part, offset in committed.items() if part.topic == topic),
            sum(end for part, end in ends.items() if part.topic == topic),
        )
        for topic in topics
    ]


async def _without_markers(
    behind: Mapping[Any, int], committed: Mapping[Any, int], reader: Any
) -> dict[Any, int]:
    """The ends of partitions where nothing but a transaction's markers is left to be read."""
    from streams.kafka.clients import Stretch, records_in

    near = {
        part: Stretch(committed[part], end)
        for part, end in behind.items()
        if end - committed[part] <= MARKERS
    }
    held = await records_in(reader, near)
    return {part: stretch.first for part, stretch in near.items() if not held[part]}


async def _partitions(settings: Settings, admin: Any) -> SeriesParts:
    """Our topics that exist, by their names without the prefix."""
    from aiokafka import TopicPartition

    from streams.kafka.topics import TOPICS

    described = await admin.describe_topics([settings.topic(name) for name in TOPICS])
    numbers = {t["topic"]: [p["partition"] for p in t["partitions"]] for t in described}
    return {
        name: [
            TopicPartition(settings.topic(name), n) for n in sorted(numbers[settings.topic(name)])
        ]
        for name in TOPICS
        if numbers.get(settings.topic(name))
    }


async def _size(parts: list[Any], reader: Any) -> int:
    """How many records there are; of a large topic how many offsets, which is a few more."""
    from streams.kafka.clients import Stretch, records_in

    ends = await reader.end_offsets(parts) if parts else {}
    starts = await reader.beginning_offsets(parts) if parts else {}
    stretches = {part: Stretch(starts[part], ends[part]) for part in parts}
    offsets = sum(stretch.end - stretch.first for stretch in stretches.values())
    if offsets > COUNTED:
        return offsets
    return sum((await records_in(reader, stretches)).values())


async def _releases(parts: list[Any], reader: Any) -> list[ReleaseAnnouncement]:
    """All announcements, oldest first; a record that is none is left out, as the roles do."""
    from streams.codec import Rejected, Removal, decode_keyed

    if not parts:
        return []
    reader.assign(parts)
    await reader.seek_to_beginning(*parts)
    end = (await reader.end_offsets(parts))[parts[0]]
    found: list[ReleaseAnnouncement | Removal | Rejected] = []
    while await reader.position(parts[0]) < end:
        for records in (await reader.getmany(timeout_ms=500)).values():
            found += [decode_keyed(record, ReleaseAnnouncement, 1) for record in records]
    return [one for one in found if isinstance(one, ReleaseAnnouncement)]

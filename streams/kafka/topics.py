"""The topics with their settings; made where missing, refused where they would lose data."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import RequestTimedOutError, TopicAlreadyExistsError, for_code

from models.errors import TopicError
from models.settings import DAY_S, Settings
from streams.kafka.clients import (
    RETRY_S,
    client_options,
    start_client,
    until_answered,
)
from streams.kafka.connectivity import answers_within, check_reachable
from streams.kafka.topic_ids import topic_ids

log = logging.getLogger(__name__)

Cleanup = Literal["delete", "compact", "compact,delete", "forever"]
VISIBLE_WITHIN_S: Final = 120.0  # until every broker knows a new topic and its leaders
# By another process that was faster, or after the time that the request had.
_MADE_ALL_THE_SAME: Final = (TopicAlreadyExistsError, RequestTimedOutError)
COMPACT_AFTER_S: Final = DAY_S  # a recorder may be down this long and still log every version
TOMBSTONES_S: Final = 7 * DAY_S  # an indexer may be down this long and still see a removal


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One line of the architecture's table of topics."""

    cleanup: Cleanup
    partitions: Literal["users", "items", "one"] = "users"

    def partition_count(self, settings: Settings) -> int:
        """`users` and `items`: kafka.partitions; `one`: 1."""
        return 1 if self.partitions == "one" else settings.kafka.partitions

    def config(self, settings: Settings) -> dict[str, str]:
        """The topic's settings in Kafka's own names."""
        kept_ms = _ms(settings.kafka.retention_days * DAY_S)
        shared = {
            "max.message.bytes": str(settings.kafka.max_message_bytes),
            # Retention and lateness go by when Kafka got a record, not by the producer's clock:
            # an import of old events must not expire as it arrives.
            "message.timestamp.type": "LogAppendTime",
        }
        compacted = {
            "min.compaction.lag.ms": _ms(COMPACT_AFTER_S),
            "delete.retention.ms": _ms(TOMBSTONES_S),
            "segment.ms": _ms(DAY_S),
        }
        by_cleanup: dict[Cleanup, dict[str, str]] = {
            "delete": {"cleanup.policy": "delete", "retention.ms": kept_ms},
            "compact": {"cleanup.policy": "compact", **compacted},
            "compact,delete": {
                "cleanup.policy": "compact,delete",
                "retention.ms": kept_ms,
                **compacted,
            },
            "forever": {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"},
        }
        return shared | by_cleanup[self.cleanup]


@dataclass(frozen=True, slots=True)
class TopicShape:
    """A topic as the broker has it; `config` in Kafka's own names."""

    partitions: int
    config: Mapping[str, str]


TOPICS: Final[Mapping[str, TopicSpec]] = {
    "interactions": TopicSpec("delete"),
    "items": TopicSpec("compact", partitions="items"),
    "profile-requests": TopicSpec("delete"),
    "profiles": TopicSpec("compact"),
    "recommendations": TopicSpec("compact,delete"),
    "profile-edits": TopicSpec("forever"),
    "dead-letters": TopicSpec("delete"),
    "releases": TopicSpec("compact", partitions="one"),
}


async def ensure_topics(settings: Settings, names: Iterable[str] = tuple(TOPICS)) -> list[str]:
    """Create the missing ones of `names`, check the others. Full names of those created.

    Waits for the broker (a command: see `ensure_topics_within`). Raises TopicError, naming topic
    and remedy, if an existing topic has another partition count or a clean-up that would lose
    data, or if Kafka refuses to create one.
    """
    wanted = {settings.topic(name): TOPICS[name] for name in names}
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    try:
        missing = wanted.keys() - set(await _existing(admin))
        created = await _create(admin, settings, {name: wanted[name] for name in sorted(missing)})
        found = await _describe(admin, wanted)
    finally:
        await admin.close()
    for name, spec in wanted.items():
        check_topic(name, spec, found[name].partitions, found[name].config, settings)
    return created


CHANGELOG: Final = "palate-tracker-histories-changelog"


def changelog_topic(settings: Settings) -> str:
    """Full name of the topic that holds the trackers' state."""
    return settings.topic(CHANGELOG)


async def ensure_changelog(settings: Settings) -> str:
    """Create the changelog if no tracker ever has; returns Kafka's id of the topic.

    Raises TopicError as `ensure_topics`.
    """
    topic, spec = changelog_topic(settings), TopicSpec("compact")
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    try:
        if topic not in await _existing(admin):
            await _create(admin, settings, {topic: spec})
        [(_, found)] = (await _describe(admin, [topic])).items()
        check_topic(topic, spec, found.partitions, found.config, settings)
        return (await until_answered(topic, lambda: topic_ids(admin, [topic])))[topic]
    finally:
        await admin.close()


async def ensure_topics_within(settings: Settings, within_s: float) -> list[str]:
    """As `ensure_topics`, for commands. Raises StackError saying why if it takes longer."""
    await check_reachable(settings, within_s)
    async with answers_within(settings, within_s):
        return await ensure_topics(settings)


async def existing_partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    """All partitions of a topic (full name), as soon as it exists."""
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    announced = False
    try:
        while True:
            [found] = await until_answered(topic, lambda: admin.describe_topics([topic]))
            numbers = sorted(partition["partition"] for partition in found["partitions"])
            if numbers:
                return [TopicPartition(topic, number) for number in numbers]
            if not announced:
                log.warning("waiting for topic %s to exist", topic)
            announced = True
            await asyncio.sleep(RETRY_S)
    finally:
        await admin.close()


async def describe_topics(settings: Settings, names: Iterable[str]) -> dict[str, TopicShape]:
    """Existing topics (full names) as the broker has them; TopicError if one has no leader."""
    admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
    try:
        return await _describe(admin, names)
    finally:
        await admin.close()


async def _existing(admin: AIOKafkaAdminClient) -> list[str]:
    return await until_answered("topics", admin.list_topics)


async def _describe(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, TopicShape]:
    wanted = list(names)
    counts, configs = await _partition_counts(admin, wanted), await _configs(admin, wanted)
    return {name: TopicShape(counts[name], configs[name]) for name in wanted}


def check_topic(
    name: str, spec: TopicSpec, partitions: int, config: Mapping[str, str], settings: Settings
) -> None:
    """Raise TopicError if a topic of this shape cannot carry what `spec` promises."""
    expected = spec.partition_count(settings)
    if partitions != expected:
        raise TopicError(_wrong_count(name, spec, partitions, expected))
    policy = set(config["cleanup.policy"].replace(" ", "").split(","))
    reason = _loss(spec, policy, config)
    if reason:
        raise TopicError(
            f"topic {name}: cleanup.policy={config['cleanup.policy']} {reason}; alter it to "
            f"{_wanted_policy(spec, settings)}"
        )
    _warn_short_retention(name, spec, policy, config, settings)
    _warn_producers_time(name, config)
    _warn_small_messages(name, config, settings)


def _wrong_count(name: str, spec: TopicSpec, partitions: int, expected: int) -> str:
    if spec.partitions == "one":
        return (
            f"topic {name} has {partitions} partitions and needs 1, so that its records have one "
            "order; delete it and start again (palate up), which makes it anew"
        )
    return (
        f"topic {name} has {partitions} partitions, kafka.partitions is {expected}; all topics "
        "keyed by user need the same count, and users move to other partitions when it changes. "
        f"Set PALATE_KAFKA__PARTITIONS={partitions} if all have that many, or use new topics "
        "with another PALATE_KAFKA__PREFIX"
    )


def _loss(spec: TopicSpec, policy: set[str], config: Mapping[str, str]) -> str | None:
    """What the clean-up would lose, or None."""
    bounded = (
        config.get("retention.ms", "-1") != "-1" or config.get("retention.bytes", "-1") != "-1"
    )
    if spec.cleanup in ("delete", "forever") and "compact" in policy:
        return "would keep only the newest record of a key, and every record is needed"
    if spec.cleanup == "forever" and bounded:
        return "with a retention would drop records that are to be kept for ever"
    if spec.cleanup == "compact" and "delete" in policy and bounded:
        return "with a retention would drop the last record of a key"
    return None


def _wanted_policy(spec: TopicSpec, settings: Settings) -> str:
    config = spec.config(settings)
    names = ("cleanup.policy", "retention.ms", "retention.bytes")
    return " ".join(f"{name}={config[name]}" for name in names if name in config)


def _warn_short_retention(
    name: str, spec: TopicSpec, policy: set[str], config: Mapping[str, str], settings: Settings
) -> None:
    """The recorder refuses to go on when events expired unrecorded; say so before."""
    kept = int(config.get("retention.ms", "-1"))
    wanted = int(settings.kafka.retention_days * DAY_S * 1000)
    if spec.cleanup == "delete" and "delete" in policy and 0 <= kept < wanted:
        log.warning(
            "topic %s keeps records for %.1f days, kafka.retention_days is %.1f: a recorder "
            "that is down for longer than the former loses events",
            *(name, kept / DAY_S / 1000, settings.kafka.retention_days),
        )


def _warn_producers_time(name: str, config: Mapping[str, str]) -> None:
    if config.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        log.warning(
            "topic %s has message.timestamp.type=%s: lateness and retention go by the producers' "
            "clocks, and what a producer gives no time is refused (no_time); alter it to "
            "message.timestamp.type=LogAppendTime",
            *(name, config["message.timestamp.type"]),
        )


def _warn_small_messages(name: str, config: Mapping[str, str], settings: Settings) -> None:
    taken = int(config.get("max.message.bytes", settings.kafka.max_message_bytes))
    if taken < settings.kafka.max_message_bytes:
        log.warning(
            "topic %s has max.message.bytes=%d, kafka.max_message_bytes is %d: what is longer than "
            "the former is refused by Kafka; make them equal",
            *(name, taken, settings.kafka.max_message_bytes),
        )


async def _create(
    admin: AIOKafkaAdminClient, settings: Settings, missing: Mapping[str, TopicSpec]
) -> list[str]:
    if not missing:
        return []
    new = [
        NewTopic(
            name,
            spec.partition_count(settings),
            settings.kafka.replication,
            topic_configs=spec.config(settings),
        )
        for name, spec in missing.items()
    ]
    answer = await until_answered("topics", partial(admin.create_topics, new))
    created = []
    for name, code, *message in answer.topic_errors:
        error = for_code(code)
        if code == 0:
            created.append(name)
        elif error not in _MADE_ALL_THE_SAME:  # what is made is checked
            detail = message[0] if message and message[0] else error.__name__
            raise TopicError(
                f"Kafka refuses to create topic {name}: {detail}. If the cluster takes smaller "
                "messages (max.message.bytes), lower kafka.max_message_bytes "
                "(PALATE_KAFKA__MAX_MESSAGE_BYTES)"
            )
    return created


async def _partition_counts(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """Topic → partitions, once all have leaders."""
    wanted = list(names)
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while True:
        topics = {
            t["topic"]: t
            for t in await until_answered("topics", partial(admin.describe_topics, wanted))
        }
        waiting = [name for name in wanted if not _has_leaders(topics.get(name))]
        if not waiting:
            return {name: len(topics[name]["partitions"]) for name in wanted}
        if time.monotonic() > deadline:
            raise TopicError(
                f"no leader for topics {', '.join(waiting)} after {VISIBLE_WITHIN_S:.0f} s; "
                "are all brokers up?"
            )
        await asyncio.sleep(0.05)


def _has_leaders(topic: Mapping[str, Any] | None) -> bool:
    if topic is None or topic["error_code"] != 0 or not topic["partitions"]:
        return False
    return all(partition["leader"] >= 0 for partition in topic["partitions"])


async def _configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Topic → its settings by Kafka's names."""
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    answers = await until_answered("topics", partial(admin.describe_configs, wanted))
    configs: dict[str, dict[str, str]] = {}
    for code, message, _, name, entries in (r for a in answers for r in a.resources):
        if code:
            raise TopicError(
                f"cannot read the settings of topic {name}: {message or for_code(code)}"
            )
        configs[name] = {entry[0]: entry[1] for entry in entries}
    return configs


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))

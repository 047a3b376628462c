"""What Kafka holds, read on from where the last reading ended.

Read by a plain consumer. What the tracker's changelog says is kept as a reader of it would have it:
the last value of each key.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from tests.faults.checker import Finding, Place, Sequenced, found
from tests.faults.oracle import Oracle

WITHIN_S = 300.0
KEPT = ("interactions", "profile-edits", "items")  # whose values are kept, for the ledger
CHANGELOG = "changelog"


class Mirror:
    """Feeds the oracle and the checks of order; keeps what was written."""

    def __init__(self, bootstrap: str, topics: dict[str, tuple[str, int]], users: set[str]) -> None:
        """`topics`: name → (full name, partitions)."""
        self._bootstrap, self._topics = bootstrap, topics
        self._positions: dict[Place, int] = {}
        self.oracle = Oracle(users)
        self.values: defaultdict[Place, dict[int, bytes | None]] = defaultdict(dict)
        self.offsets: defaultdict[Place, set[int]] = defaultdict(set)
        self.changelog: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
        self.lists = Sequenced("lists")
        self.requests = Sequenced("requests")
        self.profiles: dict[str, int] = {}  # user → greatest applied offset described
        self._profile_ids: set[str] = set()
        self._named: list[tuple[str, str]] = []  # (profile id, list that names it)

    async def catch_up(self) -> None:
        """Read all topics up to their ends as of now, interactions first."""
        async with asyncio.timeout(WITHIN_S):
            for name in sorted(self._topics, key=lambda name: name != "interactions"):
                await self._read(name)

    async def _read(self, name: str) -> None:
        full, count = self._topics[name]
        reader = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
        await reader.start()
        try:
            if full in await reader.topics():
                parts = [TopicPartition(full, number) for number in range(count)]
                await self._read_parts(name, reader, parts)
        finally:
            await reader.stop()

    async def _read_parts(
        self, name: str, reader: AIOKafkaConsumer, parts: list[TopicPartition]
    ) -> None:
        reader.assign(parts)
        ends = await reader.end_offsets(parts)
        starts = await reader.beginning_offsets(parts)
        for part in parts:
            begin = max(starts[part], self._positions.get((name, part.partition), 0))
            reader.seek(part, begin)
        while any([await reader.position(part) < ends[part] for part in parts]):
            for records in (await reader.getmany(timeout_ms=300, max_records=5_000)).values():
                for record in records:
                    self._take(name, record)
        for part in parts:
            self._positions[name, part.partition] = await reader.position(part)

    def _take(self, name: str, record: Any) -> None:
        place = name, record.partition
        if name == CHANGELOG:
            self._take_state(record)
            return
        self.offsets[place].add(record.offset)
        if name in KEPT:
            self.values[place][record.offset] = record.value
        if name == "interactions":
            self.oracle.take_interaction(record.offset, record.key, record.value)
        elif name == "profile-edits":
            self.oracle.take_edit(record.offset, record.key, record.value)
        else:
            self._take_made(name, record)

    def _take_state(self, record: Any) -> None:
        if record.value is None:
            self.changelog[record.partition].pop(record.key, None)
        else:
            self.changelog[record.partition][record.key] = record.value

    def _take_made(self, name: str, record: Any) -> None:
        """A list, request or profile; whatever else lies there was put there by a fault."""
        try:
            made = json.loads(record.value or b"")
            user, applied = made["user_id"], made["applied_offset"]
            if user not in self.oracle.states or record.key != user.encode():
                return
            where = f"{name}/{record.partition}@{record.offset}"
            if name == "recommendations":
                self.lists.take(user, made["recommendation_id"], applied, where)
                if made.get("profile_id"):
                    self._named.append((made["profile_id"], where))
            elif name == "profile-requests":
                self.requests.take(user, made["request_id"], applied, where)
            elif name == "profiles":
                self._profile_ids.add(made["profile_id"])
                self.profiles[user] = max(applied, self.profiles.get(user, -1))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return

    def ordered(self) -> list[Finding]:
        """What went back since it was last asked."""
        return [*self.lists.findings(), *self.requests.findings()]

    def unanswered(self) -> list[Finding]:
        """Users whose newest request has no profile, lists from profiles that do not exist."""
        self._named = [one for one in self._named if one[0] not in self._profile_ids]
        waiting = [
            user
            for user, applied in self.requests.last.items()
            if self.profiles.get(user, -1) < applied
        ]
        orphans = [where for _, where in self._named]
        return found("wrong", "users whose newest request has no profile", waiting) + found(
            "wrong", "lists from profiles that are in no topic", orphans
        )

    async def behind(self, prefix: str) -> str:
        """Consumer groups of Palate that have not committed past what was read here."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            groups = [group for group, *_ in await admin.list_consumer_groups()]
            ours = sorted(group for group in groups if group.startswith(f"{prefix}palate-"))
            committed = {group: await admin.list_consumer_group_offsets(group) for group in ours}
        finally:
            await admin.close()
        return ", ".join(
            f"{group} {part.topic}/{part.partition}@{mark.offset}"
            for group, marks in committed.items()
            for part, mark in marks.items()
            if 0 <= mark.offset <= self._last(part)
        )

    def _last(self, part: TopicPartition) -> int:
        """Offset of the last record of a partition: markers of transactions are none."""
        names = {full: name for name, (full, _) in self._topics.items()}
        return max(self.offsets[names.get(part.topic, ""), part.partition], default=-1)

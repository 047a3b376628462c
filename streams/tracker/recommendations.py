"""Serving: users whose state has moved get a new list, in batches, newest first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from models.errors import VectorIndexError
from models.identity import recommendation_id
from models.ranking.queries import Query
from models.ranking.scoring import rank_batch
from models.schemas import Recommendation, RecommendedItem
from models.settings import Settings
from streams.metrics import TrackerMetrics
from streams.partition_clock import PartitionClock
from streams.queries import query_of
from streams.tracker.partition_takeover import Partitions
from streams.tracker.partition_writer import Output
from streams.tracker.quarantine import UserQuarantine
from streams.tracker.reducer import whole_or_not
from streams.tracker.scheduling import ServeQueue, Trigger, recommendation_trigger
from streams.tracker.serving_views import ServingSnapshot, ServingViews
from streams.tracker.state import User
from streams.tracker.users import Place, Users
from streams.triggers import staleness

SMALL_CATALOGUE: Final = 20_000  # items, up to which ranking is many small steps
IN_TURN: Final = 8  # users ranked while the agents wait: about ten milliseconds


@dataclass(frozen=True, slots=True)
class RankingJob:
    """One recommendation to be made, with all that names it."""

    place: Place
    trigger: Trigger
    applied: int
    edits: int
    applied_time: int
    as_of: int
    profile_id: str | None
    profile_version: int | None
    profile_as_of: int | None
    staleness: float
    query: Query


Ranked = tuple[RankingJob, tuple[RecommendedItem, ...]]


class Recommender:
    """Makes, sends and marks recommendations."""

    def __init__(
        self,
        settings: Settings,
        users: Users,
        partitions: Partitions,
        waiting: ServeQueue,
        views: ServingViews,
        metrics: TrackerMetrics,
    ) -> None:
        self._settings, self._users, self._waiting = settings, users, waiting
        self._partitions, self._views, self._metrics = partitions, views, metrics
        self.quarantine = UserQuarantine("serve", users, metrics)

    async def serve(self, clocks: dict[int, PartitionClock]) -> int:
        """Serve one batch of waiting users; returns how many lists were sent.

        A list and its mark are committed together. Raises PartitionLost; who is owed a list then
        is found when the partition's state is read again.
        """
        snapshot = self._views.snapshot
        if snapshot is None or not len(snapshot.catalogue):  # an empty list would count as served
            return 0
        for place in self.quarantine.returned(clocks):
            self._waiting.add(place)
        places = self._waiting.take(self._settings.ranking.batch, time.monotonic())
        try:
            return await self._serve(places, clocks, snapshot)
        except Exception:
            for place in places:
                if place[0] in clocks:
                    self._waiting.add(place, at_once=True)
            raise

    async def _serve(
        self, places: list[Place], clocks: dict[int, PartitionClock], snapshot: ServingSnapshot
    ) -> int:
        orders = self._orders(places, clocks, snapshot)
        served: list[tuple[RankingJob, Recommendation]] = []
        for some in _parts(orders, self._ranked_at_once(snapshot)):
            for order, items in await self._ranked(snapshot, some):
                if order.place[0] in clocks:  # else the partition was lost meanwhile
                    with self.quarantine.sparing(order.place):
                        made = self._recommendation(order, items, snapshot)
                        self._send(order, made)
                        served.append((order, made))
        await self._partitions.committed(order.place[0] for order, _ in served)
        for order, one in served:
            self._observe(order, one)
        return len(served)

    def _ranked_at_once(self, snapshot: ServingSnapshot) -> int:
        return self._settings.ranking.batch if self._takes_long(snapshot) else IN_TURN

    def _takes_long(self, snapshot: ServingSnapshot) -> bool:
        return len(snapshot.catalogue) > min(SMALL_CATALOGUE, self._settings.ranking.exact_up_to)

    def _orders(
        self, places: list[Place], clocks: dict[int, PartitionClock], snapshot: ServingSnapshot
    ) -> list[RankingJob]:
        orders = []
        for place in places:
            with self.quarantine.sparing(place):
                if place[0] in clocks and not self.quarantine.holds(place):
                    orders.append(self._order(place, clocks, snapshot))
        return [order for order in orders if order is not None]

    def _order(
        self, place: Place, clocks: dict[int, PartitionClock], snapshot: ServingSnapshot
    ) -> RankingJob | None:
        partition, user_id = place
        user = self._users.get(partition, user_id)
        trigger = recommendation_trigger(user.head, user.profile, snapshot.release)
        if trigger is None:
            return None
        profile, marks = user.profile, user.head.marks(user.newest)
        if profile is not None and profile.vector_release != snapshot.release:
            profile = (
                None  # not used, so not named; streams/tracker/release_migration.py gets its vector
            )
        as_of = user.now(clocks[partition], time.time_ns() // 1_000_000)
        return RankingJob(
            place=place,
            trigger=trigger,
            applied=user.head.applied,
            edits=user.head.edits,
            applied_time=user.head.applied_time,
            as_of=as_of,
            profile_id=profile.profile_id if profile else None,
            profile_version=profile.number if profile else None,
            profile_as_of=profile.as_of if profile else None,
            staleness=staleness(
                marks, as_of, self._settings.trigger, self._settings.windows
            ).staleness,
            query=order_query(user, self._settings, self._views.texts.matching, snapshot),
        )

    async def _ranked(
        self, snapshot: ServingSnapshot, orders: Sequence[RankingJob]
    ) -> list[Ranked]:
        """All together; if that fails, each alone, without those with whom it fails."""
        if not orders:
            return []
        try:
            ranked = await self._rank_beside(snapshot, orders)
        except (VectorIndexError, OSError) as error:
            raise VectorIndexError(f"users could not be ranked: {error}") from error
        except Exception as error:  # noqa: BLE001 (as in UserQuarantine)
            if len(orders) == 1:
                self.quarantine.fail(orders[0].place, error)
                return []
            return [one for order in orders for one in await self._ranked(snapshot, [order])]
        return list(zip(orders, ranked, strict=True))

    async def _rank_beside(
        self, snapshot: ServingSnapshot, orders: Sequence[RankingJob]
    ) -> list[tuple[RecommendedItem, ...]]:
        """In a thread if the index is asked or the arrays are large, else here.

        With small arrays ranking holds the interpreter's lock for most of its time. A thread then
        waits for it at each array operation, and took two to four times as long.
        """
        if self._takes_long(snapshot):
            return await asyncio.to_thread(self._rank, snapshot, orders)
        await asyncio.sleep(0)
        return self._rank(snapshot, orders)

    def _rank(
        self, snapshot: ServingSnapshot, orders: Sequence[RankingJob]
    ) -> list[tuple[RecommendedItem, ...]]:
        started = time.monotonic()
        queries = [order.query for order in orders]
        try:
            candidates = self._views.candidates(snapshot, queries)
        except RuntimeError as error:  # the library's own are bare
            raise VectorIndexError(str(error)) from error
        ranked = rank_batch(
            snapshot.catalogue, snapshot.neighbours, queries, self._settings.ranking, candidates
        )
        self._metrics.retrieval_latency.labels(kind="rank").observe(time.monotonic() - started)
        return ranked

    def _recommendation(
        self, order: RankingJob, items: tuple[RecommendedItem, ...], snapshot: ServingSnapshot
    ) -> Recommendation:
        user_id = order.place[1]
        return Recommendation(
            recommendation_id=recommendation_id(
                *(user_id, order.applied, order.edits, order.profile_id),
                *(snapshot.release, order.trigger),
            ),
            user_id=user_id,
            as_of=order.as_of,
            trigger=order.trigger,
            applied_offset=order.applied,
            edits_offset=order.edits,
            profile_id=order.profile_id,
            profile_version=order.profile_version,
            profile_as_of=order.profile_as_of,
            release=snapshot.release,
            cooccurrence=snapshot.neighbours.id,
            items=items,
            created_at=time.time_ns() // 1_000_000,
            event_received_at=order.applied_time or None,
        )

    def _send(self, order: RankingJob, made: Recommendation) -> None:
        partition, user_id = order.place
        topic = self._settings.topic("recommendations")
        message = Output(topic, user_id.encode(), made.to_json(), partition)
        self._mark(order, made)
        self._partitions.send(partition, message)

    def _mark(self, order: RankingJob, made: Recommendation) -> None:
        partition, user_id = order.place
        user = self._users.get(partition, user_id)
        with whole_or_not(user):
            user.head.recommended, user.head.recommended_edits = order.applied, order.edits
            user.head.recommended_profile = order.profile_id or ""
            user.head.recommended_release = made.release
            self._users.save(partition, user)
        if recommendation_trigger(user.head, user.profile, made.release) is not None:
            self._waiting.add(order.place)

    def _observe(self, order: RankingJob, made: Recommendation) -> None:
        self._metrics.recommendations.labels(trigger=order.trigger).inc()
        if order.trigger == "event":
            now = time.time_ns() // 1_000_000
            self._metrics.event_to_recommendation.observe(max(0, now - order.applied_time) / 1000)
        self._metrics.staleness.observe(order.staleness)
        if made.profile_as_of is not None:
            self._metrics.profile_age.observe(max(0, order.as_of - made.profile_as_of) / 1000)


def _parts(orders: Sequence[RankingJob], size: int) -> Iterator[Sequence[RankingJob]]:
    for start in range(0, len(orders), size):
        yield orders[start : start + size]


def order_query(
    user: User,
    settings: Settings,
    matching: Callable[[tuple[str, ...]], frozenset[str]],
    snapshot: ServingSnapshot,
) -> Query:
    """What ranking is asked for this user: their history, profile, and what they forbade.

    A profile vector of another release is left out: vectors of two releases are never mixed.
    So is one that only claims to be of this release, and one of a profile that likes nothing.
    """
    profile = user.profile
    current = profile is not None and profile.vector_release == snapshot.release
    vector = profile.unit_vector() if profile is not None and current else None
    if vector is not None and len(vector) != snapshot.catalogue.dimension:
        current, vector = False, None
    spoken = profile.spoken() if profile is not None and current else None
    liking = (*spoken.stable, *spoken.current, *spoken.now) if spoken else ()
    asked = query_of(user.user_id, user.history, settings.windows)
    return replace(
        asked,
        profile=vector if liking else None,
        sentences=liking,
        hidden=asked.hidden | matching(user.head.forbidden),
    )

"""Requests under way: coalesced, many at once, each ending in a profile or a counted drop.

Order of durability (architecture, property 12): 1. write the profile, 2. produce it and await
the broker's acknowledgement, 3. note it as stored, 4. finish the request, which lets its offset
be committed. A crash before that answers the request again; the same request makes the same
profile id, and consumers keep the first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRecord

from models.schemas import Profile, ProfileRequest
from models.settings import Settings
from streams.codec import Record, Rejected, Removal, decode_keyed
from streams.kafka.clients import dead_letter_send, deliver
from streams.last_resort import attempted, failure, log_failure
from streams.metrics import ProfilerMetrics
from streams.profiler.backlog import Backlog, Waiting
from streams.profiler.intake import Intake
from streams.profiler.profile_version import ProfileVersion, RecordPosition
from streams.profiler.profile_writer import Writer, count_written
from streams.profiler.replica import Replica
from streams.profiler.serving_runtime import ServingRuntime
from streams.profiler.stored_profiles import StoredProfiles

log = logging.getLogger(__name__)


class ProfileWorker:
    """Up to `settings.profile.in_flight` users at the engine, one request of each.

    As many again may be past the engine, being checked, embedded and stored: the engine is not
    kept short of work by what comes after it.
    """

    def __init__(
        self,
        settings: Settings,
        writer: Writer,
        stored: StoredProfiles,
        serving: ServingRuntime,
        producer: AIOKafkaProducer,
        metrics: ProfilerMetrics,
        replica: Replica,
    ) -> None:
        self._settings, self._writer, self._metrics = settings, writer, metrics
        self._stored, self._serving, self.producer = stored, serving, producer
        self._backlog = Backlog()
        self._past_engine: set[str] = set()  # those of the users worked on
        self._tasks: dict[asyncio.Task[None], float] = {}  # since when (monotonic)
        self._failure: BaseException | None = None
        self.intake = Intake(settings, metrics, self._backlog.forget, replica)

    async def take_in(self, record: ConsumerRecord) -> None:
        """Queue one request, or drop it if it is invalid or needs no answer."""
        new = attempted(record, partial(self._read, record))
        if isinstance(new, Rejected):
            await self._dead_letter(record, new)
            return
        if self._answered(new):
            return
        spare = self._backlog.offer(new)
        if spare:
            self._drop(spare.record, "coalesced")

    def _read(self, record: ConsumerRecord) -> Waiting | Rejected:
        request = decode_keyed(record, ProfileRequest, self._settings.kafka.partitions)
        if isinstance(request, Rejected):
            return request
        assert not isinstance(request, Removal), "a request cannot be taken back"
        return Waiting(request.user_id, ProfileVersion.of_request(request), record)

    def dispatch(self) -> None:
        """Begin work while there is work and room."""
        while self.room > 0 and (waiting := self._backlog.take()):
            if self._answered(waiting):
                self._backlog.release(waiting.user_id)
            else:
                self._begin(waiting.user_id, self._answer(waiting))
        self._metrics.waiting.set(len(self._backlog))
        self._metrics.in_flight.set(self._backlog.working)

    def hold(self, user_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin other work on a user, unless there is some; answers for them wait until then."""
        if self._backlog.hold(user_id):
            self._begin(user_id, work)
        else:
            work.close()

    async def written(self, request: ProfileRequest, position: RecordPosition) -> Profile:
        """The profile that answers `request`, not produced yet."""
        loaded = self._serving.now()
        answer = await self._writer.ask(request, loaded)
        self._past_engine.add(request.user_id)
        self.dispatch()
        return await self._writer.write(request, position, loaded, answer)

    async def publish(self, profile: Profile, request: ProfileRequest) -> None:
        """Make a profile durable; returns once the broker has it."""
        topic = self._settings.topic("profiles")
        await deliver(self.producer, topic, profile.to_json(), key=profile.user_id.encode())
        self._stored.note(profile)
        count_written(profile, self._metrics)
        took_s = time.time() - request.requested_at / 1000
        self._metrics.request_to_profile.observe(max(0.0, took_s))

    @property
    def room(self) -> int:
        """How many more requests may be worked on."""
        most = self._settings.profile.in_flight
        return most + min(len(self._past_engine), most) - self._backlog.working

    @property
    def waiting(self) -> int:
        """Users whose request waits for room."""
        return len(self._backlog)

    @property
    def oldest_s(self) -> float:
        """For how long the oldest piece of work has been under way; 0 if there is none."""
        now = time.monotonic()
        return max((now - since for since in self._tasks.values()), default=0.0)

    def raise_failure(self) -> None:
        """Raise what ended a piece of work that could not end: the broker refused the profile."""
        if self._failure is not None:
            raise self._failure

    async def drain(self, within_s: float) -> None:
        """Let the work under way end; what takes longer is left to the next start."""
        self._backlog.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        late = list(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if late:
            log.info("%d requests were not answered in time; they are read again", len(late))

    def _begin(self, user_id: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = time.monotonic()
        task.add_done_callback(lambda done: self._end(user_id, done))

    def _end(self, user_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._past_engine.discard(user_id)
        self._backlog.release(user_id)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            return
        self.dispatch()

    async def _answer(self, waiting: Waiting) -> None:
        record = waiting.record
        try:
            request = ProfileRequest.model_validate_json(record.value or b"")
            profile = await self.written(request, waiting.position)  # 1. write
            await self.publish(profile, request)  # 2. produce, 3. note
        except Exception as error:  # noqa: BLE001 (one poisonous request must not stop the others)
            why = failure(error)
            log_failure(record, error)
            await self._dead_letter(record, why)
        else:
            self.intake.finish(record)  # 4. its offset may be committed

    def _answered(self, waiting: Waiting) -> bool:
        """Whether a profile as new is stored; then the request is dropped."""
        answered = self._stored.answers(waiting.user_id, waiting.marks)
        if answered:
            self._drop(waiting.record, "superseded")
        return answered

    def _drop(self, record: Record, reason: str) -> None:
        self._metrics.dropped.labels(reason=reason).inc()
        self.intake.finish(record)

    async def _dead_letter(self, record: Record, why: Rejected) -> None:
        await dead_letter_send(self.producer, self._settings, record, why, self._metrics)
        self._drop(record, "failed" if why.reason == "failed" else "invalid")

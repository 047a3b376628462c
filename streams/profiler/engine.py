"""Asking the language model: bounded tries, then nothing. Never an exception for the caller."""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from typing import Final

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_exponential_jitter,
)

from models.errors import EngineError, EngineUnavailable
from models.ports import Completion, ProfileEncoder
from models.settings import ProfileSettings
from streams.metrics import ProfilerMetrics

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 10.0
PROBE_EVERY_S: Final = 1.0


FAILURES_TO_OPEN: Final = 3  # in a row; then the engine is asked whether it is well

# Whether what an engine wrote is text at all; whether it is true, grounding decides.
MOST_UNPRINTABLE: Final = 0.1  # share of characters; more is binary
MOST_COMPRESSIBLE: Final = 12.0  # English shrinks 2 to 4 times, a loop of one phrase 15 and more
LOOPS_FROM_BYTES: Final = 400  # shorter texts compress too little to judge
MOST_CHARS_PER_TOKEN: Final = 40  # a longer answer ignores the limit that it was given


def nonsense(text: str, max_new_tokens: int) -> str | None:
    """Why a completion is no text: empty, endless, binary or loop; None if it is one."""
    stripped = text.strip()
    if not any(character.isalpha() for character in stripped):
        return "empty"
    if len(stripped) > max_new_tokens * MOST_CHARS_PER_TOKEN:
        return "endless"
    strange = sum(not (c.isprintable() or c.isspace()) or c == "\ufffd" for c in stripped)
    if strange > MOST_UNPRINTABLE * len(stripped):
        return "binary"
    return "loop" if _loops(stripped.encode()) else None


def _loops(text: bytes) -> bool:
    return (
        len(text) >= LOOPS_FROM_BYTES and len(text) / len(zlib.compress(text)) > MOST_COMPRESSIBLE
    )


class Breaker:
    """Closed: calls pass. Open after three failures in a row: calls are not worth making.

    `probed_well` closes it to a trial: the next failure opens it again, a success restores it.
    Pure; the role decides when to probe.
    """

    def __init__(self) -> None:
        self._failures = 0
        self.open = False

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures = 0
        self.open = False

    def failed(self) -> None:
        """A call was not answered."""
        self._failures += 1
        self.open = self._failures >= FAILURES_TO_OPEN

    def probed_well(self) -> None:
        """The engine says that it is well again."""
        if self.open:
            self._failures = FAILURES_TO_OPEN - 1
            self.open = False


class Nonsense(EngineUnavailable):
    """The engine answered with something that is no text; another try may do better."""


class Engine:
    """A ProfileEncoder behind retries with back-off and jitter, and a circuit breaker.

    While the breaker is open nothing is asked; `watch` closes it when the engine is well again.
    """

    def __init__(
        self, encoder: ProfileEncoder, settings: ProfileSettings, metrics: ProfilerMetrics
    ) -> None:
        self._encoder, self._settings, self._metrics = encoder, settings, metrics
        self._breaker = Breaker()
        self._given_up = False  # said once, until a call is answered
        self._metrics.engine_up.set(1)

    @property
    def available(self) -> bool:
        """Whether asking is worth it now."""
        return not self._breaker.open

    async def ask(self, prompt: str, adapter: str | None = None) -> Completion | None:
        """The completion, or None if all tries failed or the engine is known to be down."""
        if self._breaker.open:
            return None
        try:
            async for attempt in self._tries():
                with attempt:
                    return await self._try(prompt, adapter)
        except EngineError as error:
            log.warning("no profile from the model: %s", error)
        except Exception:  # what an engine's library did not foresee must not lose the request
            log.exception("no profile from the model: a defect in the engine")
            self._failed("error")
        return None

    async def watch(self) -> None:
        """Probe an engine that is down, for ever."""
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            if self._breaker.open and await self._is_well():
                self._breaker.probed_well()
                self._metrics.engine_up.set(1)

    async def _is_well(self) -> bool:
        try:
            return await self._encoder.healthy()
        except Exception:  # as in `ask`: a defect in the engine, which must not end the role
            log.exception("the language model cannot be probed")
            return False

    def _tries(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(EngineUnavailable),
            stop=self._enough,
            wait=wait_exponential_jitter(
                multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S, jitter=FIRST_WAIT_S
            ),
            reraise=True,
        )

    def _enough(self, tries: RetryCallState) -> bool:
        return (
            self._breaker.open
            or tries.attempt_number > self._settings.retries
            or (tries.seconds_since_start or 0.0) >= self._settings.timeout_s
        )

    async def _try(self, prompt: str, adapter: str | None) -> Completion:
        if self._breaker.open:
            raise EngineUnavailable("it has failed several times; waiting until it is well")
        started = time.monotonic()
        try:
            completion = await self._sensible(prompt, adapter)
        except EngineError as error:
            self._failed(_kind(error))
            raise
        self._metrics.engine_latency.observe(time.monotonic() - started)
        self._breaker.succeeded()
        if self._given_up:
            self._given_up = False
            log.info("the language model answers again")
        return completion

    async def _sensible(self, prompt: str, adapter: str | None) -> Completion:
        limit = self._settings.max_new_tokens
        completion = await self._encoder.complete(prompt, max_new_tokens=limit, adapter=adapter)
        reason = nonsense(completion.text, limit)
        if reason:
            raise Nonsense(f"{completion.model} answered nonsense ({reason})")
        return completion

    def _failed(self, kind: str) -> None:
        self._metrics.engine_failures.labels(kind=kind).inc()
        self._breaker.failed()
        self._metrics.engine_up.set(not self._breaker.open)
        if self._breaker.open and not self._given_up:
            self._given_up = True
            log.warning("the language model is given up until it is well; profiles are extractive")


def _kind(error: EngineError) -> str:
    if isinstance(error, Nonsense):
        return "nonsense"
    return "unavailable" if isinstance(error, EngineUnavailable) else "error"

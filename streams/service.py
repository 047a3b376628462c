"""What every role needs around its work: logging, signals, an end within a limit, exit codes."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.config
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TypeVar

import orjson
import uvloop
from aiokafka.errors import KafkaError

from models.errors import PalateError, SettingsError
from models.machine_faults import lacking, remedy, told
from models.settings import LivenessSettings, Settings
from streams.health import Watch

log = logging.getLogger(__name__)

REPEAT_AFTER_S: Final = 30.0
REMEMBERED: Final = 1_000  # different messages, so that memory stays bounded
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
CANCEL_S: Final = 1.0  # for what was cancelled to end
T = TypeVar("T")
PLAIN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


Main = Callable[[asyncio.Event], Awaitable[None]]


def run_role(name: str, settings: Settings, main: Main) -> None:
    """Run `main(stop)` until it returns. SIGTERM or SIGINT sets `stop`, a second one cancels.

    `main` sets `stop` by itself when its work has ended (see `working`). From then on the process
    ends within a limit, whatever hangs. Exits with 1 if `main` fails and with 2 if a setting is
    wrong: an error on purpose or of the machine in one line, anything else, which is a defect,
    with its traceback; with 4 if it did not close in time, with 5 if its event loop hung.
    """
    set_up_logging(settings)
    log.info("%s starts with settings %s", name, orjson.dumps(settings.printable()).decode())
    before = set(threading.enumerate())
    with Watch(name, settings.liveness) as watch:
        code = _live(name, main, watch, settings.liveness)
        for thread in set(threading.enumerate()) - before:
            if not thread.daemon:
                thread.join()  # the interpreter would wait for it, but without a limit
    if code:
        sys.exit(code)
    log.info("%s has stopped", name)


def _live(name: str, main: Main, watch: Watch, limits: LivenessSettings) -> int:
    """The role's whole life; its exit code."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Life(name, main, watch, limits).run())
    except PalateError as error:
        log.error("%s stops: %s", name, error)
        return 2 if isinstance(error, SettingsError) else 1
    except asyncio.CancelledError:
        log.error("%s was told to stop a second time and did not drain", name)
        return 1
    except OSError as error:
        log.error("%s stops: %s", name, told(error), exc_info=remedy(error) is None)
        return 1
    except ModuleNotFoundError as error:
        advice = lacking(error)
        log.error("%s stops: %s", name, advice or error, exc_info=advice is None)
        return 1
    except Exception:
        log.exception("%s stops because of a defect", name)
        return 1
    return 0


class _Life:
    """One run of `main`, with what may end it."""

    def __init__(self, name: str, main: Main, watch: Watch, limits: LivenessSettings) -> None:
        self._name, self._main, self._watch, self._limits = name, main, watch, limits
        self._stop = asyncio.Event()
        self._signals = 0
        self._failure: BaseException | None = None  # that nobody was there to take

    async def run(self) -> None:
        """Raises what ended the work."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._on_unhandled)
        beside = [asyncio.create_task(self._watch.beat()), asyncio.create_task(self._closing())]
        # Not loop.add_signal_handler: a handler of Python's own also runs while the loop hangs.
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        self._work = asyncio.ensure_future(self._main(self._stop))
        try:
            await asyncio.wait({self._work})
            self._work.result()
            if self._failure is not None:
                raise self._failure
        finally:
            self._watch.close_within(self._limits.close_s)
            for task in beside:
                task.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _closing(self) -> None:
        """Work that has ended by itself has little to finish: the rest is read again."""
        await self._stop.wait()
        if not self._signals:
            self._watch.close_within(self._limits.close_s)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        again = self._signals > 1
        self._watch.close_within(self._limits.close_s if again else self._limits.drain_s)
        self._loop.call_soon_threadsafe(self._told_to_stop, number, again)

    def _told_to_stop(self, number: int, again: bool) -> None:
        log.info("%s: draining", signal.Signals(number).name)
        self._stop.set()
        if again:
            self._work.cancel()

    def _on_unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback or a forgotten task raised: work has ended that somebody counts on.

        Of the Kafka client it is not: it leaves behind tasks that failed while a broker was away.
        """
        error = context.get("exception")
        log.error("nobody took: %s", context.get("message"), exc_info=error)
        if isinstance(error, Exception) and not isinstance(error, (KafkaError, OSError)):
            self._failure = self._failure or error
            self._stop.set()


@contextmanager
def working(name: str, stop: asyncio.Event) -> Iterator[None]:
    """For the work of a role: when it ends, it is said why, and `stop` is set.

    Whatever closing does after that, the role is not ready any more, and ends within a limit.
    """
    try:
        yield
    except asyncio.CancelledError:
        raise
    except PalateError as error:
        log.error("the work of the %s has ended, it closes: %s", name, error)
        raise
    except Exception:
        log.exception("the work of the %s has ended, it closes", name)
        raise
    finally:
        stop.set()


async def until_stopped(
    stop: asyncio.Event, *work: Coroutine[Any, Any, T], grace_s: float = 0.0
) -> T | None:
    """What the first of `work` to end returns, or None if `stop` is set first.

    Raises what the first one raised. After `stop` the first of `work` has `grace_s` to end by
    itself; what is left then is cancelled.
    """
    # No asyncio.TaskGroup: it waits for all of its tasks where the first to end ends this, and for
    # one that swallows its cancellation for ever; and it wraps what a task raised.
    stopping = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if stopping in done and grace_s:
            await asyncio.wait(tasks[:1], timeout=grace_s)
        ended = [task for task in tasks if task.done()]
        results = [task.result() for task in ended]  # of all: each may have failed
        return results[0] if results else None
    finally:
        stopping.cancel()
        await cancelled(tasks)


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait a moment for it: a library may swallow it, for ever."""
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=CANCEL_S)
    for task in left:
        if task.done() and not task.cancelled() and task.exception() is not None:
            log.warning("while it was cancelled: %r", task.exception())


def freeze_gc() -> None:
    """Call when a role has loaded what stays: full collections leave that out from now on.

    In a tracker with a catalogue of 4,619 items each of them stopped everything for 0.14 s;
    afterwards it was 0.005 s.
    """
    gc.collect()
    gc.freeze()


def set_up_logging(settings: Settings) -> None:
    """Log to standard error in the format and from the level of the settings."""
    formatter = JsonLines if settings.log_format == "json" else TextLines
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.disable(level - 1)  # debug records are a third of Faust's time even when thrown away
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"lines": {"()": formatter}},
            "filters": {"repeats": {"()": QuietRepeats}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": "lines",
                    "filters": ["repeats"],
                }
            },
            "root": {"level": level, "handlers": ["stderr"]},
        }
    )


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """The structured fields given by `extra=`."""
    return {name: value for name, value in vars(record).items() if name not in PLAIN_FIELDS}


class TextLines(logging.Formatter):
    """`2026-11-21 04:00:00,123 INFO streams.recorder: text  topic=items partition=2`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (base class)
        """The line, with the structured fields behind it."""
        fields = "".join(f" {name}={value}" for name, value in _extra(record).items())
        return super().formatMessage(record) + (f" {fields}" if fields else "")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class QuietRepeats(logging.Filter):
    """Lets a message of the Kafka client through once in 30 s.

    It logs an error at every try while a broker is away, ten times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if not record.name.startswith("aiokafka"):
            return True
        key = (record.name, record.getMessage())
        if record.created - self._last.get(key, 0.0) < REPEAT_AFTER_S:
            return False
        if len(self._last) >= REMEMBERED:
            self._last.clear()
        self._last[key] = record.created
        return True

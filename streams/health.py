"""Whether a role is alive: said over HTTP, and enforced by a thread beside the event loop.

Both stand beside the loop, because a loop that hangs can say nothing.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, NamedTuple

from models.errors import StackError
from models.settings import LivenessSettings
from streams.metrics import RoleMetrics, exposition

log = logging.getLogger(__name__)

EXIT_NOT_CLOSED: Final = 4  # closing took longer than its limit
EXIT_HUNG: Final = 5  # the event loop did not turn any more
TICK_S: Final = 0.5  # the watching thread wakes up so often
PULSE_S: Final = 0.25  # readiness is looked at so often
SILENT_S: Final = 5.0  # a loop that has not turned for so long does no work
STOPPING: Final = "stopping"

NotReady = Callable[[], str | None]


class Watch:
    """Ends the process when the event loop hangs, or when closing has no end.

    It counts its own ticks, not the clock: time for which the process or its machine stood still
    is not held against the loop, which had no chance to turn either.
    """

    def __init__(
        self, name: str, limits: LivenessSettings, leave: Callable[[int], object] = os._exit
    ) -> None:
        self._name, self._limits, self._leave = name, limits, leave
        self._beats = 0
        self._left: float | None = None  # seconds until closing must have ended
        self._allowed = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def close_within(self, seconds: float) -> None:
        """From now on the process has this long to end; an earlier limit stays."""
        if self._left is None or seconds < self._left:
            self._left = self._allowed = seconds

    async def beat(self) -> None:
        """Show that the loop turns, for ever."""
        while True:
            self._beats += 1
            await asyncio.sleep(TICK_S)

    def _run(self) -> None:
        silent, seen = 0.0, -1
        while not self._done.wait(TICK_S):
            if self._left is not None:
                self._left -= TICK_S
                if self._left <= 0:
                    return self._end(EXIT_NOT_CLOSED, f"it did not close in {self._allowed:.0f} s")
                continue
            silent = 0.0 if self._beats != seen else silent + TICK_S
            seen = self._beats
            if silent >= self._limits.hung_s:
                return self._end(EXIT_HUNG, f"its event loop has hung for {silent:.0f} s")
        return None

    def _end(self, code: int, why: str) -> None:
        """The log's locks may be held by what hangs, so the last words go past them."""
        words = (
            f"{self._name} is ended with code {code}: {why}; what every thread was doing stands "
            "above. Nothing is lost: what was not finished is read again at the next start"
        )
        record = log.makeRecord(log.name, logging.ERROR, "", 0, words, (), None)
        handlers = logging.getLogger().handlers
        line = handlers[0].format(record) if handlers else words
        faulthandler.dump_traceback(file=2, all_threads=True)
        os.write(2, line.encode() + b"\n")
        self._leave(code)


class _Pulse(NamedTuple):
    """What the event loop said last."""

    at: float  # monotonic
    reason: str | None


class HealthServer:
    """Serves /metrics, /healthz (the event loop turns) and /readyz (work is being done).

    The last two answer 503 with the reason otherwise. `not_ready` is called on the event loop.
    """

    def __init__(self, host: str, port: int, metrics: RoleMetrics, not_ready: NotReady) -> None:
        self._address = (host, port)
        self._metrics, self._not_ready = metrics, not_ready
        self._pulse = _Pulse(time.monotonic(), "starting")
        self._server: _Server | None = None
        self._beating: asyncio.Task[None] | None = None

    async def start(self, stop: asyncio.Event | None = None) -> None:
        """Listen; not ready once `stop` is set. Raises StackError if the port is taken."""
        try:
            self._server = _Server(self._address, self._answer)
        except OSError as error:
            host, port = self._address
            raise StackError(
                f"cannot serve metrics on {host}:{port} ({error.strerror or error}); "
                "stop what uses that port or choose another (PALATE_METRICS__…_PORT)"
            ) from error
        self._look(stop)
        self._beating = asyncio.create_task(self._beat(stop), name="health")
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    async def stop(self) -> None:
        """Stop listening; may be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        if self._beating is not None:
            self._beating.cancel()
        await asyncio.to_thread(server.shutdown)
        server.server_close()

    @property
    def reason(self) -> str | None:
        """Why no work is being done; None if it is."""
        return self._hung() or self._pulse.reason

    async def _beat(self, stop: asyncio.Event | None) -> None:
        while True:
            self._look(stop)
            await asyncio.sleep(PULSE_S)

    def _look(self, stop: asyncio.Event | None) -> None:
        stopping = stop is not None and stop.is_set()
        try:
            reason = STOPPING if stopping else self._not_ready()
        except Exception as error:  # a question that fails must not be taken for a yes
            log.exception("whether the role is ready cannot be said")
            reason = f"readiness is not known: {error!r}"
        self._pulse = _Pulse(time.monotonic(), reason)

    def _hung(self) -> str | None:
        silent = time.monotonic() - self._pulse.at
        if silent < SILENT_S:
            return None
        return f"the event loop has not turned for more than {SILENT_S:.0f} s"

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        """(status, content type, body); called by the server's threads."""
        if path == "/metrics":
            return self._page()
        if path not in ("/healthz", "/readyz"):
            return 404, "text/plain", b"/metrics, /healthz, /readyz\n"
        reason = self.reason if path == "/readyz" else self._hung()
        well = "ready" if path == "/readyz" else "ok"
        body = f"{reason or well}\n".encode()
        return 503 if reason else 200, "text/plain; charset=utf-8", body

    def _page(self) -> tuple[int, str, bytes]:
        reason, metrics = self.reason, self._metrics
        metrics.ready.clear()  # only the present reason is shown
        metrics.ready.labels(reason=reason or "").set(0 if reason else 1)
        body, kind = exposition(metrics.registry)
        return 200, kind, body


class _Server(ThreadingHTTPServer):
    """Without the look-up of the machine's name, which takes seconds where DNS is slow."""

    def __init__(
        self, address: tuple[str, int], answer: Callable[[str], tuple[int, str, bytes]]
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.answer = answer
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5.0  # of a client that says nothing

    def do_GET(self) -> None:
        status, kind, body = self.server.answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Probes come every few seconds: not logged."""

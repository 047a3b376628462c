"""What is around the roles: the clock, the model server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Literal

from tests.faults.registry import Faulty, fault
from tests.faults.system import System
from tests.ports import free_ports

HOUR_S = 3_600.0
STAYS_S = 12.0  # a profiler that dies of its model server does so at once

HTML = b"<!doctype html><html><body>Bad gateway</body></html>"
JUNK = (HTML, b"[]", b'{"data": 7}', b'{"models": []}', b"null", b"{")


@fault("a clock that jumps ahead and back changes no state")
def clock_forward(system: System, chance: Random) -> Faulty:
    """An hour or a day, of all roles."""
    system.shift_clock(chance.choice((HOUR_S, 24 * HOUR_S)))
    yield 6.0
    system.shift_clock(0.0)


@fault("a clock that jumps back changes no state")
def clock_back(system: System, chance: Random) -> Faulty:
    """A minute or an hour; then it is set right again."""
    system.shift_clock(-chance.choice((60.0, HOUR_S)))
    yield 6.0
    system.shift_clock(0.0)


@fault("an engine that is none is away: the profiler lives and says so")
def model_server_of_nonsense(system: System, chance: Random) -> Faulty:
    """`/v1/models` answers 200, with HTML or with JSON of another shape."""
    yield from _profiler_with(system, chance, "junk")


@fault("an engine that hangs is away: the profiler lives and says so")
def model_server_hangs(system: System, chance: Random) -> Faulty:
    """Connections are taken, and nothing ever comes back."""
    yield from _profiler_with(system, chance, "silence")


def _profiler_with(system: System, chance: Random, answers: Literal["junk", "silence"]) -> Faulty:
    """The profiler is started with that server, must live, and is given its own engine back."""
    [port] = free_ports(1)
    bodies = itertools.cycle(chance.sample(JUNK, len(JUNK))) if answers == "junk" else None
    server = system.loop.call(asyncio.start_server(_answering(bodies), "127.0.0.1", port))
    system.kill("profiler")
    system.stack.environment["profiler"].update(
        PALATE_PROFILE__ENGINE="openai", PALATE_PROFILE__BASE_URL=f"http://127.0.0.1:{port}/v1"
    )
    system.start("profiler")
    system.waited(lambda: _answers(system) or system.process("profiler") is None, 60.0)
    yield 0.0
    system.waited(lambda: system.process("profiler") is None, STAYS_S)
    last = system.log_of("profiler")[-300:]
    system.require(system.process("profiler"), "the profiler outlives its model server", last)
    system.stack.environment["profiler"].clear()
    system.kill("profiler")
    system.loop.loop.call_soon_threadsafe(server.close)


def _answers(system: System) -> bool:
    """Whether the profiler serves health: it is past its imports."""
    from deploy.stack import readiness

    return readiness(system.role("profiler")) != "starting"


def _answering(bodies: Iterator[bytes] | None) -> Callable[..., Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if bodies is None:
            await asyncio.sleep(HOUR_S)
            return
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            await reader.readexactly(int(length[1]) if length else 0)
            body = next(bodies)
            kind = "text/html" if body is HTML else "application/json"
            told = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{told}Connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    return serve

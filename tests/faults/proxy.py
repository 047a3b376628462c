"""A TCP proxy between a role and the broker that can cut the line."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

Line = Literal["open", "silent", "refused"]
CHUNK = 64 * 1024


class Proxy:
    """Forwards connections to 127.0.0.1:`target`. Lives in one event loop.

    `silent`: the bytes of all connections stay where they are, as behind a dead switch; nobody is
    told. `refused`: connections are reset, and new ones end at once.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> None:
        """Listen on this port of the loopback."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def stop(self) -> None:
        """Listen no more and drop all connections."""
        if self._server:
            self._server.close()
        self._drop()

    def switch(self, line: Line) -> None:
        """Cut the line, or mend it. What was held back by `silent` then arrives."""
        self._refusing = line == "refused"
        if line == "silent":
            self._open.clear()
        else:
            self._open.set()
        if self._refusing:
            self._drop()

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            upstream = await asyncio.open_connection("127.0.0.1", self._target)
            await self._join(reader, writer, *upstream)
        writer.transport.abort()

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamReader,
        forth: asyncio.StreamWriter,
    ) -> None:
        ends = {writer, forth}
        self._writers |= ends
        try:
            ways = [self._copy(reader, forth), self._copy(back, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
        finally:
            self._writers -= ends
            forth.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await self._open.wait()
                writer.write(chunk)
                await writer.drain()

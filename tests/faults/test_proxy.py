"""The proxy forwards, holds back and cuts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.faults.proxy import Proxy
from tests.patience import HANG_S
from tests.ports import free_ports

Ask = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Proxy, int]]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server_port, proxy_port = free_ports(2)
    server = await asyncio.start_server(echo, "127.0.0.1", server_port)
    proxy = Proxy(server_port)
    await proxy.start(proxy_port)
    try:
        yield proxy, proxy_port
    finally:
        await proxy.stop()
        server.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes) -> bytes:
    writer.write(text + b"\n")
    async with asyncio.timeout(HANG_S):
        return await reader.readline()


def test_a_silent_line_holds_everything_back_and_gives_it_later() -> None:
    async def scene() -> None:
        async with echoing() as (proxy, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await ask(reader, writer, b"one") == b"one\n"
            proxy.switch("silent")
            writer.write(b"two\n")
            waiting = asyncio.ensure_future(reader.readline())
            await asyncio.sleep(0.2)
            assert not waiting.done()
            proxy.switch("open")
            async with asyncio.timeout(HANG_S):
                assert await waiting == b"two\n"
            writer.close()

    asyncio.run(scene())


def test_a_refused_line_ends_connections_until_it_is_open_again() -> None:
    async def scene() -> None:
        async with echoing() as (proxy, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await ask(reader, writer, b"one") == b"one\n"
            proxy.switch("refused")
            assert await _ends(reader)
            other, _ = await asyncio.open_connection("127.0.0.1", port)
            assert await _ends(other)
            proxy.switch("open")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await ask(reader, writer, b"two") == b"two\n"
            writer.close()

    async def _ends(reader: asyncio.StreamReader) -> bool:
        async with asyncio.timeout(HANG_S):
            try:
                return await reader.read(1) == b""
            except ConnectionError:
                return True

    asyncio.run(scene())

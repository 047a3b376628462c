"""What goes wrong between us and a model server, as EngineErrors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

import openai

from models.errors import EngineError, EngineUnavailable

REFUSED: Final = {400, 413, 422}  # this request will never do; any other status may pass
NOT_FOUND: Final = 404

T = TypeVar("T")


class NotServed(EngineUnavailable):
    """The server has no such model or adapter now: it was restarted, or it is another server."""


class NotAModelServer(EngineUnavailable):
    """What answers is no server of models, or not now: a proxy's page, a server that starts."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; does profile.base_url name an OpenAI-compatible server?")


async def within(timeout_s: float, call: Awaitable[T]) -> T:
    """Await a call of the client; what goes wrong becomes an EngineError.

    The time limit is on the whole call: the client's own is per read, which an answer that
    never ends would pass.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except (TimeoutError, openai.APITimeoutError) as error:
        raise EngineUnavailable(f"no answer from the model server in {timeout_s:.0f} s") from error
    except openai.APIConnectionError as error:
        raise EngineUnavailable(f"the model server cannot be reached: {error}") from error
    except openai.APIStatusError as error:
        raise _kind(error.status_code)(
            f"the model server answered {error.status_code}: {error.message}"
        ) from error
    except EngineError:
        raise
    except Exception as error:  # the client checks little of what a stranger may answer
        raise NotAModelServer(
            f"the model server's answer cannot be read: {error!r:.200}"
        ) from error


def _kind(status: int) -> type[EngineError]:
    if status in REFUSED:
        return EngineError
    return NotServed if status == NOT_FOUND else EngineUnavailable

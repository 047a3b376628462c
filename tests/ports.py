"""Ports for what tests start, apart from those of other tests and other runs on the machine.

A port is free only until somebody else listens on it, and a stack's ports are chosen long before
they are used. So a process holds a UDP socket at each port that it has chosen: no other process
that chooses here takes it meanwhile, and nothing is left behind when the process ends.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from random import SystemRandom

HOST = "127.0.0.1"
LOWEST, HIGHEST = 10_000, 19_990  # below those of deploy.broker.free_port
HELD = 200  # the newest; older ones are in use by now, or of no use any more
_chance = SystemRandom()  # hypothesis gives all processes the same numbers
_held: deque[socket.socket] = deque(maxlen=HELD)


def free_port() -> int:
    """A port of one's own."""
    return neighbouring_ports(1)


def free_ports(count: int) -> list[int]:
    """Different ports of one's own."""
    return [free_port() for _ in range(count)]


def neighbouring_ports(count: int = 2) -> int:
    """The first of `count` ports in a row: each further worker of a role takes the next."""
    while True:
        first = _chance.randrange(LOWEST, HIGHEST)
        with contextlib.ExitStack() as claims, contextlib.suppress(OSError):
            sockets = [claims.enter_context(_claim(first + number)) for number in range(count)]
            claims.pop_all()
            _held.extend(sockets)
            return first


def _claim(port: int) -> socket.socket:
    """Raises OSError if somebody has it."""
    with socket.socket() as listener:
        listener.bind((HOST, port))
    claim = socket.socket(type=socket.SOCK_DGRAM)
    try:
        claim.bind((HOST, port))
    except OSError:
        claim.close()
        raise
    return claim

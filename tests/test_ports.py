"""Nobody else takes a port that a test has chosen."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests import ports
from tests.ports import HOST, free_ports, neighbouring_ports


def test_a_process_that_chooses_meanwhile_does_not_take_them():
    mine = free_ports(20)
    told = subprocess.run(
        [sys.executable, "-c", CHOOSE, str(min(mine)), str(max(mine))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(mine) == len(set(mine))
    assert set(map(int, told.stdout.split())).isdisjoint(mine)


CHOOSE = """
import sys
from tests import ports
for port in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
    try:
        ports._claim(port).close()
    except OSError:
        continue
    print(port)
"""


def test_ports_in_a_row_are_all_free():
    first = neighbouring_ports(3)
    for port in range(first, first + 3):
        with socket.socket() as probe:
            probe.bind((HOST, port))


def test_a_port_that_somebody_listens_on_is_not_chosen():
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            ports._claim(taken)

"""An interrupt ends a command with its own code, wherever in Python it strikes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROLOGUE = """
import os, signal, sys, time
from deploy.interruption import interruptible, stopped_by_signals
interruptible()
stopped_by_signals()
def strike(): os.kill(os.getpid(), int(sys.argv[1]))
try:
    {body}
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped in order")
    sys.exit(130)
"""
BODIES = {
    "in plain code": "strike()",
    "in code made from a string": "exec('strike()')",
    "in a finaliser": "type('Ends', (), {'__del__': lambda self: strike()})()",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_an_interrupt_is_neither_lost_nor_a_crash(number: signal.Signals, body: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE.format(body=body), str(int(number))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "stopped in order\n"), done.stderr

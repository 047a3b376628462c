"""Ctrl-C and SIGTERM as one exception, which is neither lost nor taken for a crash.

Python loses an exception that is raised in a finaliser; here it is raised again. And if a plain
KeyboardInterrupt has passed through code that was made from a string, as dataclasses are, Python
kills the process with SIGINT at its end although the exception was caught; it does not do so for
a subclass.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any, Final, NoReturn

AGAIN_S: Final = 0.1


class Interrupted(KeyboardInterrupt):
    """The user or a service manager wants the command to stop."""


def interrupt(_number: int = signal.SIGINT, _frame: FrameType | None = None) -> NoReturn:
    """A signal handler: stop what is under way, cleaning up."""
    raise Interrupted


def interruptible() -> None:
    """For the whole command line: no interrupt is lost."""
    sys.unraisablehook = _raise_again


def stopped_by_signals() -> None:
    """For commands that have started something which is to be stopped in any case.

    Where Ctrl-C is ignored, as in a background job, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def _raise_again(lost: Any) -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt):  # but not in this hook: it would be lost again
        main = threading.main_thread().ident or 0
        threading.Timer(AGAIN_S, signal.pthread_kill, (main, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)

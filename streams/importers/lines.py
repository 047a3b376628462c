"""A text file → its lines, whatever its encoding and however damaged, in bounded memory.

What spoils one line is said with the line; ImportFailed is raised only where nothing more can be
read: a truncated archive, a disk that fails, an encoding that does not exist.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

from models.errors import ImportFailed

MAX_LINE_CHARS = 16 * 1024 * 1024

_GZIP: Final = b"\x1f\x8b"
_BYTE_ORDER_MARKS: Final = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_DAMAGE: Final = (EOFError, gzip.BadGzipFile, zlib.error, OSError)


class Line(NamedTuple):
    """One line with its end; `problem` says why its text is not what was written."""

    number: int  # from 1
    text: str
    problem: str = ""


def _stand_ins(error: UnicodeError) -> tuple[str, int]:
    """Each undecodable byte becomes a surrogate that carries it, and decoding goes on."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in wrong), error.end


# Python's own "surrogateescape" gives up on bytes below 0x80, which UTF-16 can be wrong in.
codecs.register_error("palate.importers", _stand_ins)


def read_lines(
    path: Path, encoding: str | None, otherwise: str, ends: str | None
) -> tuple[IO[bytes], Iterator[Line]]:
    """The open file, to see how far it has been read, and its lines.

    `encoding` None: as the file's byte order mark says, else `otherwise`. `ends`: as `newline`
    of io.TextIOWrapper. Raises ImportFailed.
    """
    file = path.open("rb")
    try:
        stream, head = _unzipped(path, file)
        chosen = _named(encoding, head) if encoding is not None else _marked(head) or otherwise
        text = _decoded(path, stream, chosen, ends)
    except BaseException:
        file.close()
        raise
    return file, _lines(path, file, text)


def _unzipped(path: Path, file: io.BufferedReader) -> tuple[IO[bytes], bytes]:
    """The uncompressed stream, and its first bytes."""
    if file.peek(2).startswith(_GZIP):
        unzipped = gzip.GzipFile(fileobj=file)
        try:
            return cast(IO[bytes], unzipped), unzipped.peek(4)[:4]
        except _DAMAGE as error:
            raise _damaged(path, 1, error) from error
    if path.suffix.lower() == ".gz":
        raise ImportFailed(f"{path}: named .gz, but it is not a gzip file")
    return file, file.peek(4)[:4]


def _marked(head: bytes) -> str | None:
    return next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), None)


def _named(encoding: str, head: bytes) -> str:
    """UTF-16 and UTF-32 without a mark: the zeros of the first character tell the byte order."""
    try:
        bare = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        return encoding
    if bare not in ("utf-16", "utf-32") or _marked(head):
        return encoding
    return f"{bare}-{'be' if head.startswith(bytes(1)) else 'le'}"


def _decoded(path: Path, stream: IO[bytes], encoding: str, ends: str | None) -> io.TextIOWrapper:
    try:
        return io.TextIOWrapper(stream, encoding, errors="palate.importers", newline=ends)
    except (LookupError, ValueError) as error:  # also names of what does not decode text
        raise ImportFailed(
            f"{path}: there is no text encoding called {encoding!r}; --encoding takes names "
            "such as utf-8, utf-16, latin-1, cp1252"
        ) from error


def _lines(path: Path, file: IO[bytes], text: io.TextIOWrapper) -> Iterator[Line]:
    number = 0
    with file, text:  # closing a gzip stream leaves its file open
        while True:
            number += 1
            try:
                line = text.readline(MAX_LINE_CHARS)
                overlong = len(line) == MAX_LINE_CHARS and not line.endswith(("\n", "\r"))
                if overlong:
                    _skip_rest(text)
            except _DAMAGE as error:
                raise _damaged(path, number, error) from error
            except (UnicodeError, ValueError, NotImplementedError) as error:
                raise ImportFailed(
                    f"{path}, line {number}: cannot be read as {text.encoding} ({error}); name "
                    "the file's encoding with --encoding"
                ) from error
            if not line:
                return
            if overlong:
                yield Line(number, "", f"longer than {MAX_LINE_CHARS} characters")
                continue
            line = line.removeprefix("\ufeff") if number == 1 else line
            yield Line(number, line, _problem(line, text.encoding))


def _skip_rest(text: io.TextIOWrapper) -> None:
    """Read on to the end of an overlong line."""
    while part := text.readline(MAX_LINE_CHARS):
        if part.endswith(("\n", "\r")):
            return


def _problem(line: str, encoding: str) -> str:
    found = None if line.isascii() else _SURROGATE.search(line)
    if found is None:
        return ""
    byte = ord(found[0]) - 0xDC00
    what = f"byte 0x{byte:02x}" if 0 <= byte < 256 else "a half of a character"
    return (
        f"{what} at column {found.start() + 1} is not {encoding}; name the file's encoding (for "
        "example --encoding latin-1) or save it in one encoding"
    )


def _damaged(path: Path, line: int, error: Exception) -> ImportFailed:
    return ImportFailed(
        f"{path}, line {line}: the file cannot be read further ({error}); it is truncated or "
        "damaged: fetch it again"
    )

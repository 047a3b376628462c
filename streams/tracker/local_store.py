"""One partition's state on this machine: RocksDB, always equal to a beginning of its changelog.

A batch goes in after the changelog has it, together with the offset up to which the changelog is
held then, in one write. So the folder may be stale or gone, but never holds what the changelog
does not: what is missing is read from there. A damaged folder is removed and read anew.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

import msgspec
from rocksdict import BlockBasedOptions, Cache, DbClosedError, Options, Rdict, WriteBatch

from models.errors import StackError, StoreDamaged
from models.settings import DAY_S

log = logging.getLogger(__name__)

POSITION_KEY: Final = b"\0position"
# Kafka may drop a deletion from a compacted topic after a day. A folder that was away for longer
# could keep what was deleted meanwhile.
TRUSTED_FOR_S: Final = DAY_S / 2
CLOCKS_DIFFER_S: Final = 60.0
_NO_ROOM: Final = re.compile("No space left|Too many open files|Cannot allocate memory")
_IN_USE: Final = re.compile(r"While lock file|lock hold by")
_WRITE_BUFFER: Final = 16 << 20
_BLOCK_CACHE: Final = 64 << 20


class StorePosition(msgspec.Struct, array_like=True):
    """Up to where the folder holds which changelog."""

    topic_id: str  # Kafka's id of the changelog topic
    next_offset: int
    written_at: float  # wall time, epoch s


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(StorePosition).decode


class LocalStore:
    """Bytes → bytes in one folder."""

    def __init__(self, folder: Path, db: Rdict, position: StorePosition) -> None:
        self._folder, self._db = folder, db
        self.position = position

    @classmethod
    def open(cls, folder: Path, topic_id: str) -> Self:
        """The folder's content, or an empty store where there is none that can be trusted.

        Raises StackError if another process has the folder open or the disk does not take it.
        """
        found = _opened(folder)
        if found is not None:
            store = cls(folder, *found)
            reason = store._distrusted(topic_id)
            if reason is None:
                return store
            log.info("local state %s %s; it is read from the changelog again", folder, reason)
            store.close()
        return cls._emptied(folder, topic_id)

    @classmethod
    def _emptied(cls, folder: Path, topic_id: str) -> Self:
        remove(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            db = Rdict(str(folder), options=_options())
        except Exception as error:  # the library's own are bare
            if _NO_ROOM.search(str(error)):
                raise StoreDamaged(f"local state {folder}: {error}") from error
            raise StackError(
                f"cannot keep the tracker's state in {folder}: {error}; is there room, and may "
                "this user write there?"
            ) from error
        return cls(folder, db, StorePosition(topic_id, 0, time.time()))

    def _distrusted(self, topic_id: str) -> str | None:
        """Why the content does not count, or None."""
        if self.position.topic_id != topic_id:
            return "belongs to another changelog topic"
        age = time.time() - self.position.written_at
        if not -CLOCKS_DIFFER_S <= age <= TRUSTED_FOR_S:
            return f"was not written within the last {TRUSTED_FOR_S / 3600:.0f} hours"
        return None

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None. Raises StoreDamaged."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise self._damaged(error) from error
        return value

    def scan(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key begins with `prefix`, in order of key. Raises StoreDamaged.

        With `after`, only those whose key is greater than `prefix + after`.
        """
        begin = prefix + after + b"\0" if after else prefix  # the least key that is greater
        try:
            for key, value in self._db.items(from_key=begin):
                if not key.startswith(prefix):
                    return
                yield key, value
        except DbClosedError:
            raise
        except Exception as error:
            raise self._damaged(error) from error

    def apply(self, changes: Mapping[bytes, bytes | None], next_offset: int) -> None:
        """Take in what the changelog holds before `next_offset`; None deletes. All or nothing.

        Raises StoreDamaged.
        """
        position = StorePosition(self.position.topic_id, next_offset, time.time())
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(POSITION_KEY, _encode(position))
        try:
            self._db.write(batch)
        except Exception as error:
            raise self._damaged(error) from error
        self.position = position

    def _damaged(self, error: Exception) -> StoreDamaged:
        return StoreDamaged(f"local state {self._folder}: {error}")

    def close(self) -> None:
        """Close the folder; may be called twice."""
        try:
            self._db.close()
        except Exception as error:  # noqa: BLE001 (a damaged one may not close; it is done with)
            log.warning("closing %s: %s", self._folder, error)


def remove(folder: Path) -> None:
    """Delete a store's folder; the changelog has all of it."""
    shutil.rmtree(folder, ignore_errors=True)


def refused_by_machine(error: StoreDamaged) -> bool:
    """Whether nothing is damaged: the disk is full, or too many files are open."""
    return _NO_ROOM.search(str(error)) is not None


def _opened(folder: Path) -> tuple[Rdict, StorePosition] | None:
    """The database and its position; None if there is none or it is damaged, which is said."""
    if not folder.is_dir():
        return None
    db = None
    try:
        db = Rdict(str(folder), options=_options())
        return db, _decode(db.get(POSITION_KEY) or b"")
    except Exception as error:
        if db is not None:
            db.close()
        if _IN_USE.search(str(error)):
            raise StackError(
                f"{folder} is open in another process ({error}): every tracker needs a worker "
                "number of its own (PALATE_WORKER), or stop the other one"
            ) from error
        if _NO_ROOM.search(str(error)):
            raise StoreDamaged(f"local state {folder}: {error}") from error
        log.warning("local state %s is damaged (%s); the changelog has all of it", folder, error)
        return None


def _options() -> Options:
    options, blocks = Options(raw_mode=True), BlockBasedOptions()
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER)
    blocks.set_bloom_filter(10, block_based=True)
    blocks.set_block_cache(Cache(_BLOCK_CACHE))
    options.set_block_based_table_factory(blocks)
    return options

"""A user's state as records of the table `histories`, small enough to write at every batch.

Three kinds of record, told apart by the first byte of the key:

    u<user>            Head: marks, and the newest entries of the history (the tail)
    h<chunk><user>     one sealed chunk of older entries (chunk: 2 bytes, big-endian)
    p<user>            the newest profile, as far as recommending needs it
    c                  the partition's clock

In-order events rewrite the head alone; once in `TAIL` events they are moved into the newest
chunk. An event that arrives late rewrites the one chunk it falls into. A chunk is deleted when
all of it has left the history. Records carry a version.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from models.errors import RecordDamaged, TopicError
from models.schemas import EARLIEST_MS, LATEST_MS, AppliedEdits, Profile, ProfileEdit, Sections
from models.text import json_size
from streams.partition_clock import PartitionClock, Visit
from streams.triggers import NEVER, Marks
from streams.windows import EMPTY, History, HistoryEntry

VERSION: Final = 4  # of clocks and heads; 1 to 3 are from before the first release
TAIL: Final = 12  # entries in the head before they are sealed; about 1 KB
CHUNK_LIMIT: Final = 64  # entries of a chunk; a few chunks keep the head's list of them short
EDIT_BYTES: Final = 110_000  # of a request, for pins and as much for forbidden words
KNOWN_EDITS: Final = 128  # of a user: what is sent again comes soon, and a head must stay small
CLOCK_KEY: Final = b"c"
SOURCE: Final = b"t"
HEAD: Final = b"u"
CHUNK: Final = b"h"
PROFILE: Final = b"p"


Key = tuple[int, str]  # (event time, event id)
T = TypeVar("T")


class SealedChunk(msgspec.Struct, frozen=True, array_like=True):
    """Where a chunk of older entries is, and the key of its first entry."""

    number: int
    first_time: int
    first_id: str

    @property
    def first(self) -> Key:
        """Key of the chunk's first entry."""
        return self.first_time, self.first_id


class Head(msgspec.Struct, array_like=True):
    """The marks of one user and the tail of the history.

    What is owed can be read off it (property 5): a recommendation while `recommended` is behind
    `applied`, `recommended_edits` behind `edits`, or `recommended_profile` is not the current
    profile; a profile as `triggers` says.
    """

    version: int = VERSION
    applied: int = NEVER  # offset of the last applied interaction
    applied_time: int = 0  # Kafka time of that record, epoch ms
    evidence: float = 0.0  # weighted evidence ever applied
    requested: int = NEVER  # `applied` of the last acknowledged request
    requested_edits: int = NEVER  # `edits` of that request
    requested_as_of: int = NEVER  # its event time
    requested_evidence: float = 0.0  # `evidence` when it was made
    requests: int = 0  # requests acknowledged
    recommended: int = NEVER  # `applied` of the last acknowledged recommendation
    recommended_profile: str = ""  # the profile it used
    recommended_release: str = ""  # the release it used
    edits: int = NEVER  # offset of the last applied edit
    pinned: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    history_from: int = 0  # interactions before this offset were forgotten at the user's wish
    next_chunk: int = 0
    sealed: tuple[SealedChunk, ...] = ()
    tail: History = EMPTY
    lead: int | None = None  # of the user's own time over Kafka's; None before the first event
    forgotten_until: int = NEVER  # event time up to which interactions were forgotten
    forgotten_at: int = NEVER  # Kafka's time of the last wish to be forgotten, epoch ms
    forgotten_edits: int = NEVER  # `edits` at that wish
    recommended_edits: int = NEVER  # `edits` of the last acknowledged recommendation
    known_edits: tuple[int, ...] = ()  # marks of the newest edits applied
    gained: int = 0  # by the partition when the user's newest event arrived, ms

    def marks(self, newest: int) -> Marks:
        """What the trigger looks at."""
        return Marks(
            evidence=self.evidence - self.requested_evidence,
            newest=newest,
            requested_as_of=self.requested_as_of,
            edited=self.edits > self.requested_edits,
        )

    def now(self, clock: PartitionClock, wall: int, newest: int) -> int:
        """The user's event time at `wall`; `newest`: that of the newest entry of the history.

        No clock, however wrong, leads out of the years that messages may name.
        """
        return min(max(EARLIEST_MS, self._now(clock, wall, newest)), LATEST_MS - 1)

    def _now(self, clock: PartitionClock, wall: int, newest: int) -> int:
        if self.lead is None:
            return min(wall, clock.counted(wall))  # nothing of the user but edits
        return clock.now(wall, newest, self.lead, self.gained)

    def applied_edits(self) -> AppliedEdits:
        """The user's edits in force, as far as a request has room: the newest."""
        return AppliedEdits(
            pinned=newest_edits(self.pinned),
            forbidden=newest_edits(self.forbidden),
            replaced=self.replaced,
        )


def edit_mark(edit: ProfileEdit) -> int:
    """Eight bytes for an edit's id. A wish to be forgotten is never taken for another edit."""
    kind = b"forget" if edit.action == "forget" else b""
    return int.from_bytes(hashlib.blake2b(edit.edit_id.encode(), digest_size=8, key=kind).digest())


def newest_edits(texts: tuple[str, ...]) -> tuple[str, ...]:
    """As many of the newest as a head, and a request, have room for."""
    room = EDIT_BYTES
    for count, text in enumerate(reversed(texts)):
        room -= json_size(text) + 1
        if room < 0:
            return texts[len(texts) - count :]
    return texts


class ProfileRecord(msgspec.Struct, frozen=True, array_like=True):
    """The newest profile of a user, as far as recommending needs it."""

    profile_id: str
    number: int
    as_of: int
    applied: int
    edits: int
    fallback: bool
    release: str
    vector_release: str
    sections: bytes  # JSON of models.schemas.Sections
    vector: bytes  # float16, little-endian
    version: int = VERSION

    @classmethod
    def of(cls, profile: Profile) -> ProfileRecord:
        """The record of a profile message."""
        return cls(
            profile.profile_id,
            profile.version,
            profile.as_of,
            profile.applied_offset,
            profile.edits_offset,
            profile.fallback,
            profile.release,
            profile.vector_release,
            profile.sections.model_dump_json(exclude_none=True).encode(),
            _float16(profile.vector),
        )

    def with_vector(self, vector: np.ndarray, release: str) -> ProfileRecord:
        """The same profile with the vector that `release` has for it."""
        return msgspec.structs.replace(self, vector=_float16(vector), vector_release=release)

    def newness(self) -> tuple[int, int, int, bool]:
        """Greater is newer (property 4); a model's text beats its own stand-in."""
        return self.applied, self.edits, self.number, not self.fallback

    def unit_vector(self) -> np.ndarray:
        """float32 [dimension]."""
        return np.frombuffer(self.vector, dtype="<f2").astype(np.float32)

    def spoken(self) -> Sections:
        """The sentences."""
        return Sections.model_validate_json(self.sections)


def _float16(vector: Sequence[float] | np.ndarray) -> bytes:
    return np.asarray(vector, dtype="<f2").tobytes()


@dataclass(slots=True)
class User:
    """One user's state while it is being worked on."""

    user_id: str
    head: Head = field(default_factory=Head)
    history: History = EMPTY
    profile: ProfileRecord | None = None

    @property
    def newest(self) -> int:
        """Event time of the newest entry; NEVER if there is none."""
        return self.history[-1].timestamp if self.history else NEVER

    def now(self, clock: PartitionClock, wall: int) -> int:
        """The user's event time at `wall` by the partition's clock."""
        return self.head.now(clock, wall, self.newest)


_encode: Final = msgspec.msgpack.Encoder().encode
_head: Final = msgspec.msgpack.Decoder(Head).decode
_chunk: Final = msgspec.msgpack.Decoder(History).decode
_profile: Final = msgspec.msgpack.Decoder(ProfileRecord).decode
_clock: Final = msgspec.msgpack.Decoder(tuple[int, ...]).decode


def head_key(user_id: str) -> bytes:
    """Key of a user's head."""
    return HEAD + user_id.encode()


def profile_key(user_id: str) -> bytes:
    """Key of a user's profile record."""
    return PROFILE + user_id.encode()


def chunk_key(number: int, user_id: str) -> bytes:
    """Key of one sealed chunk."""
    return CHUNK + (number % 65_536).to_bytes(2, "big") + user_id.encode()


def encode_profile(record: ProfileRecord) -> bytes:
    """The value under `profile_key`."""
    return _encode(record)


def decode_profile(value: bytes) -> ProfileRecord:
    """The record under `profile_key`. Raises RecordDamaged."""
    return _decoded(_profile, value, "profile")


def _decoded(decode: Callable[[bytes], T], value: bytes, kind: str) -> T:
    try:
        return decode(value)
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordDamaged(
            f"a record of table histories is no {kind} that Palate has written ({error}); it is "
            "passed over, and `palate rebuild` makes the state anew from the event log"
        ) from error


def source_key(topic: str) -> bytes:
    """Where Kafka's id of a topic (without prefix) is kept whose records were applied."""
    return SOURCE + topic.encode()


def encode_clock(clock: PartitionClock, next_offset: int, next_edit: int) -> bytes:
    """The value under CLOCK_KEY: the clock and the offsets after the last ones applied."""
    visits = (
        number
        for user, seconds, returned, in_order in clock.visits
        for number in (user, seconds, returned + 2 * in_order)
    )
    times = (clock.seen, clock.gained, clock.behind, clock.furthest)
    return _encode((VERSION, next_offset, next_edit, *times, *visits))


def decode_clock(value: bytes | None) -> tuple[PartitionClock, int, int]:
    """(clock, next interaction offset, next edit offset) of a partition.

    Raises TopicError for another version's record, and RecordDamaged.
    """
    if value is None:
        return PartitionClock(), 0, 0
    return _decoded(_clock_and_offsets, value, "clock")


def _clock_and_offsets(value: bytes) -> tuple[PartitionClock, int, int]:
    version, *numbers = _clock(value)
    if version != VERSION:
        raise TopicError(_other_version(version))
    next_offset, next_edit, seen, gained, behind, furthest, *visits = numbers
    found = (
        Visit(user, seconds, bool(flags & 1), bool(flags & 2))
        for user, seconds, flags in zip(visits[::3], visits[1::3], visits[2::3], strict=True)
    )
    return PartitionClock(seen, gained, behind, tuple(found), furthest), next_offset, next_edit


def _other_version(found: int) -> str:
    return (
        f"state of version {found} in table histories; this Palate reads {VERSION}: run the "
        "Palate that wrote it, or `palate rebuild` from the event log"
    )


def decode_head(value: bytes) -> Head:
    """The value under `head_key`. Raises TopicError for another version's record; RecordDamaged."""
    head = _decoded(_head, value, "head")
    if head.version != VERSION:
        raise TopicError(_other_version(head.version))
    return head


def _passed_on(error: RecordDamaged) -> None:
    raise error


def load(
    user_id: str,
    get: Callable[[bytes], bytes | None],
    cap: int,
    on_damaged: Callable[[RecordDamaged], None] = _passed_on,
) -> User:
    """Read one user's state with `get`; a fresh state if there is none.

    A damaged record counts as absent if `on_damaged` does not raise what it is given.
    """

    def found(decode: Callable[[bytes], T], key: bytes) -> T | None:
        value = get(key)
        try:
            return None if value is None else decode(value)
        except RecordDamaged as error:
            on_damaged(error)
            return None

    head = found(decode_head, head_key(user_id))
    if head is None:
        return User(user_id)
    ends = [chunk.first for chunk in head.sealed[1:]] + [entry.key for entry in head.tail[:1]]
    chunks = (
        _before(found(_decode_chunk, chunk_key(sealed.number, user_id)) or EMPTY, end)
        for sealed, end in zip(head.sealed, ends, strict=False)  # no chunk: one end too many
    )
    history = (*chain.from_iterable(chunks), *head.tail)[-cap:]
    return User(user_id, head, history, found(decode_profile, profile_key(user_id)))


def _decode_chunk(value: bytes) -> History:
    return _decoded(_chunk, value, "chunk of a history")


def _before(entries: History, end: Key) -> History:
    """A chunk's entries before `end`: a chunk may have been written before its head was."""
    return entries[: bisect_left(entries, end, key=_key)]


def store(user: User, inserted: Sequence[Key]) -> Iterator[tuple[bytes, bytes | None]]:
    """(key, value) records that bring the table up to `user`; None deletes. Updates the head.

    `inserted` are the keys of the entries that came in since the last store. The order is safe
    to be cut anywhere: chunks only grow before the head is written, and go after it.
    """
    head, history = user.head, user.history
    begins = _begins(user)
    touched = {max(0, bisect_right(begins.keys, key) - 1) for key in inserted}
    sealing = _Sealing(user.user_id, head.next_chunk)
    for place, chunk in enumerate(head.sealed):
        part = history[begins.places[place] : begins.places[place + 1]]
        if not part:
            sealing.delete(chunk)
        elif place in touched:
            sealing.rewrite(chunk, part)
        else:
            sealing.keep(chunk)
    tail = history[begins.places[-1] :]
    if len(tail) > TAIL:
        last = history[begins.places[-2] : begins.places[-1]] if len(begins.places) > 1 else EMPTY
        sealing.append(last, tail[:-1])
        tail = tail[-1:]
    user.head = msgspec.structs.replace(
        head, sealed=tuple(sealing.sealed), next_chunk=sealing.number, tail=tail
    )
    yield from sealing.records
    yield head_key(user.user_id), _encode(user.head)
    yield from ((chunk_key(number, user.user_id), None) for number in sealing.gone)


class _Begins(NamedTuple):
    keys: list[Key]  # first key of each sealed chunk, then of the tail
    places: list[int]  # where in the history each begins


def _begins(user: User) -> _Begins:
    head, history = user.head, user.history
    if not head.sealed:
        return _Begins([history[0].key if history else (0, "")], [0])
    keys = [chunk.first for chunk in head.sealed] + [head.tail[0].key]
    return _Begins(keys, [0] + [bisect_left(history, key, key=_key) for key in keys[1:]])


class _Sealing:
    """Collects the chunks of a store and the records that they need."""

    def __init__(self, user_id: str, number: int) -> None:
        self.user_id = user_id
        self.number = number
        self.sealed: list[SealedChunk] = []
        self.records: list[tuple[bytes, bytes]] = []
        self.gone: list[int] = []

    def keep(self, chunk: SealedChunk) -> None:
        self.sealed.append(chunk)

    def delete(self, chunk: SealedChunk) -> None:
        self.gone.append(chunk.number)

    def rewrite(self, chunk: SealedChunk, part: History) -> None:
        """Write a chunk that late entries fell into; split under new numbers if it is large."""
        if len(part) <= CHUNK_LIMIT:
            self._write(chunk.number, part)
            return
        self.delete(chunk)
        self._write_parts(part)

    def append(self, last: History, entries: History) -> None:
        """Seal `entries`, filling up the newest chunk (now holding `last`) first."""
        room = CHUNK_LIMIT - len(last)
        if self.sealed and room > 0:
            self._write(self.sealed.pop().number, last + entries[:room])
            entries = entries[room:]
        self._write_parts(entries)

    def _write_parts(self, entries: History) -> None:
        for begin in range(0, len(entries), CHUNK_LIMIT):
            self._write(self.number, entries[begin : begin + CHUNK_LIMIT])
            self.number += 1

    def _write(self, number: int, part: History) -> None:
        self.sealed.append(SealedChunk(number, *part[0].key))
        self.records.append((chunk_key(number, self.user_id), _encode(part)))


def _key(entry: HistoryEntry) -> Key:
    return entry.key

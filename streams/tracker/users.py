"""Users' states: decoded in memory while they are busy, always in the partition's state.

Every change is written before the next await, so that no two tasks can hold different states of
one user.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from models.errors import RecordDamaged
from streams.codec import Rejected, id_of
from streams.metrics import TrackerMetrics
from streams.tracker.partition_takeover import Partitions
from streams.tracker.state import (
    HEAD,
    PROFILE,
    Head,
    Key,
    ProfileRecord,
    User,
    decode_head,
    decode_profile,
    encode_profile,
    load,
    profile_key,
    store,
)

log = logging.getLogger(__name__)

CACHED_ENTRIES: Final = 400_000  # history entries kept decoded, about 100 MB
Place = tuple[int, str]  # (partition, user id)
T = TypeVar("T")


class Users:
    """Reads and writes states, the busiest from memory."""

    def __init__(self, partitions: Partitions, history_cap: int, metrics: TrackerMetrics) -> None:
        self._partitions, self._cap, self._metrics = partitions, history_cap, metrics
        self._cache: OrderedDict[Place, User] = OrderedDict()
        self._sizes: dict[Place, int] = {}  # entries of each cached user, as last counted
        self._entries = 0  # their sum

    def get(self, partition: int, user_id: str) -> User:
        """The user's state; a fresh one if there is none."""
        place = partition, user_id
        user = self._cache.get(place)
        if user is None:
            user = self._load(partition, user_id)
            self._cache[place] = user
            self._count(place, user)
            self._shrink()
        else:
            self._cache.move_to_end(place)
        return user

    def _load(self, partition: int, user_id: str) -> User:
        def on_damaged(error: RecordDamaged) -> None:
            self.note_damaged(partition, user_id, error)

        return load(
            user_id, lambda key: self._partitions.get(partition, key), self._cap, on_damaged
        )

    def note_damaged(self, partition: int, whose: str, error: RecordDamaged) -> None:
        """A record is passed over; who has it is told."""
        self._metrics.damaged_records.inc()
        log.error("partition %d, %.80s: %s", partition, whose, error)

    def save(self, partition: int, user: User, inserted: Sequence[Key] = ()) -> None:
        """Write the user's head, and the chunks that `inserted` keys fell into."""
        records = list(store(user, inserted))  # all of them, before the first is written
        self._count((partition, user.user_id), user)
        self._partitions.write(partition, records)

    def save_whole(self, partition: int, user: User) -> None:
        """Write head and history again, after entries were forgotten in the middle of it."""
        self._count((partition, user.user_id), user)
        self._partitions.write(partition, list(store(user, [entry.key for entry in user.history])))

    def save_profile(self, partition: int, user: User, record: ProfileRecord | None) -> None:
        """Write (None: delete) the user's newest profile."""
        value = None if record is None else encode_profile(record)
        user.profile = record
        self._partitions.write(partition, [(profile_key(user.user_id), value)])

    def heads(self, partition: int, after: str = "") -> Iterator[tuple[str, Head]]:
        """All users of a partition in order of their ids' bytes, from behind `after` on."""
        yield from self._readable(partition, HEAD, decode_head, after)

    def profile(self, partition: int, user_id: str) -> ProfileRecord | None:
        """The user's newest profile, read without the history."""
        value = self._partitions.get(partition, profile_key(user_id))
        try:
            return None if value is None else decode_profile(value)
        except RecordDamaged as error:
            self.note_damaged(partition, user_id, error)
            return None

    def profiles(self, partition: int) -> Iterator[tuple[str, ProfileRecord]]:
        """All stored profiles of a partition."""
        yield from self._readable(partition, PROFILE, decode_profile)

    def _readable(
        self, partition: int, prefix: bytes, decode: Callable[[bytes], T], after: str = ""
    ) -> Iterator[tuple[str, T]]:
        for key, value in self._partitions.scan(partition, prefix, after.encode()):
            user_id = id_of(key[1:])
            try:
                if isinstance(user_id, Rejected):
                    raise RecordDamaged(
                        f"a record of table histories is nobody's: {user_id.detail}"
                    )
                record = decode(value)
            except RecordDamaged as error:
                self.note_damaged(partition, repr(key[1:]), error)
            else:
                yield user_id, record

    def forget_cached(self, partition: int) -> None:
        """Empty the memory of a partition's users, after other workers may have written."""
        for place in [place for place in self._cache if place[0] == partition]:
            self._drop(place)

    def _count(self, place: Place, user: User) -> None:
        if place in self._cache:
            size = len(user.history) + 1
            self._entries += size - self._sizes.get(place, 0)
            self._sizes[place] = size

    def _shrink(self) -> None:
        while self._entries > CACHED_ENTRIES and len(self._cache) > 1:
            self._drop(next(iter(self._cache)))

    def _drop(self, place: Place) -> None:
        del self._cache[place]
        self._entries -= self._sizes.pop(place)

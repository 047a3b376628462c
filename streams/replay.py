"""The event log → what the tracker saw, in the same order and through the same functions.

Used to rebuild state, to check parity, and by training. Rows stream; what is held in memory are
the histories of the users asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from models.errors import EventLogError
from models.schemas import TOPIC_SCHEMAS, Interaction, Message
from models.settings import Settings, WindowSettings
from streams.codec import Rejected, decode
from streams.event_log import SegmentLog
from streams.event_log.columns import OK
from streams.windows import EMPTY, History, advance, entry_of, kept, remembered

M = TypeVar("M", bound=Message)
NEVER: Final = -1  # applied offset of a user to whom nothing was applied
_COLUMNS: Final = ("offset", "kafka_time", "status", "value")


class Logged(NamedTuple):
    """An accepted message and where it stood in its partition."""

    offset: int
    kafka_time: int  # epoch ms
    message: Message


class LoggedInteraction(NamedTuple):
    """An accepted interaction and where it stood in its partition."""

    offset: int
    kafka_time: int  # epoch ms
    interaction: Interaction


class ReplayedUser(NamedTuple):
    """One user as the tracker's state must have it."""

    partition: int
    user_id: str
    history: History
    applied_offset: int  # of the last interaction that changed the history


def messages(
    log: SegmentLog,
    topic: str,
    partition: int,
    first: int = 0,
    last: int | None = None,
    users: Collection[str] | None = None,
) -> Iterator[Logged]:
    """Accepted messages with offsets first..last, decoded again from their bytes.

    `users`: only theirs. Raises EventLogError where today's codec refuses what was accepted.
    """
    columns = [*_COLUMNS, "user_id"] if users is not None else list(_COLUMNS)
    wanted = pa.array(sorted(users), pa.string()) if users is not None else None
    schema = TOPIC_SCHEMAS[topic]
    for batch in log.batches(topic, partition, first, last, columns):
        for offset, kafka_time, value in _accepted(batch, wanted):
            message = decode(value, schema)
            if isinstance(message, Rejected):
                raise EventLogError(
                    f"{topic} partition {partition} offset {offset} was accepted when it was "
                    f"logged, but is refused now ({message.detail}): this Palate reads another "
                    "schema than the one that recorded it"
                )
            yield Logged(offset, kafka_time, message)


def _accepted(
    batch: pa.RecordBatch, users: pa.Array | None
) -> Iterator[tuple[int, int, bytes | None]]:
    mask = pc.equal(batch.column("status"), OK)
    if users is not None:
        mask = pc.and_(mask, pc.is_in(batch.column("user_id"), value_set=users))
    chosen = batch.filter(mask)
    columns = (chosen.column(name).to_pylist() for name in ("offset", "kafka_time", "value"))
    return zip(*columns, strict=True)


def interactions(
    log: SegmentLog,
    partition: int,
    first: int = 0,
    last: int | None = None,
    users: Collection[str] | None = None,
) -> Iterator[LoggedInteraction]:
    """Accepted interactions with offsets first..last, in order of offset."""
    for offset, kafka_time, message in messages(log, "interactions", partition, first, last, users):
        assert isinstance(message, Interaction)
        yield LoggedInteraction(offset, kafka_time, message)


@dataclass(slots=True)
class Replay:
    """Folds interactions, in order of offset, into histories."""

    spec: WindowSettings
    histories: dict[str, History] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)

    def take(self, interaction: Interaction, offset: int) -> None:
        """Apply one interaction as the tracker does."""
        if not kept(interaction, self.spec):
            return
        user_id = interaction.user_id
        before = self.histories.get(user_id, EMPTY)
        after = advance(before, entry_of(interaction, offset), self.spec.history_cap)
        if after is not before:
            self.histories[user_id], self.applied[user_id] = after, offset

    def history(self, user_id: str) -> History:
        """The user's history as of the last interaction taken."""
        return self.histories.get(user_id, EMPTY)

    def forget(self, user_id: str, history_from: int, until: int | None) -> None:
        """Drop interactions before offset `history_from`, or up to event time `until`."""
        history = self.history(user_id)
        if history:
            self.histories[user_id] = remembered(history, until, history_from)


def replay_histories(
    log: SegmentLog, settings: Settings, partition: int, until_offset: int | None = None
) -> Iterator[ReplayedUser]:
    """Every user of a partition after the interactions up to `until_offset` (inclusive).

    What users asked to be forgotten is in here: `streams.rebuild` applies edits too.
    """
    replay = Replay(settings.windows)
    for offset, _, interaction in interactions(log, partition, last=until_offset):
        replay.take(interaction, offset)
    for user_id, history in replay.histories.items():
        yield ReplayedUser(partition, user_id, history, replay.applied[user_id])


def partitions(log: SegmentLog, topics: Sequence[str]) -> list[int]:
    """Partitions that any of the topics has in the log, ascending."""
    return sorted({partition for topic in topics for partition in log.partitions(topic)})

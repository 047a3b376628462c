"""What everything is trained and evaluated on: items, sessions by split, events before a border.

corpus = Corpus.from_log(SegmentLog(settings.log_dir), settings)
corpus = Corpus.from_folder(Path("data/sample"), settings)
for session in corpus.sessions.train: …
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from models.errors import TrainingError
from models.schemas import Item
from models.settings import Settings, WindowSettings
from models.text import embedding_text, item_text
from streams.event_log import SegmentLog
from trainer.data.folder_source import FolderSource
from trainer.data.log_source import LogSource, Pins
from trainer.data.point_in_time import UserLog, replay_users
from trainer.data.sessionize import Positives, left_out_sessions, temporal_sessions
from trainer.data.sessions import Session
from trainer.data.sources import Events, EventsBuilder, InteractionSource, event_times
from trainer.data.splits import Borders, Split, SplitProtocol, temporal_borders


@dataclass(frozen=True, slots=True)
class Sessions:
    """Point-in-time sessions by split; a user's come newest first."""

    train: tuple[Session, ...]
    validation: tuple[Session, ...]
    test: tuple[Session, ...]

    def of(self, split: Split) -> tuple[Session, ...]:
        """The sessions of one split."""
        found: tuple[Session, ...] = getattr(self, split)
        return found


@dataclass(frozen=True, slots=True)
class DataRange:
    """What was read: event times (epoch ms) and, per partition, the offset after the last."""

    borders: Borders
    next_offsets: Mapping[int, int]


@dataclass(frozen=True)
class Corpus:
    """One reading of the data. Everything in it is in a fixed order: same data, same corpus."""

    name: str
    protocol: SplitProtocol
    spec: WindowSettings
    items: Mapping[str, Item]  # in ascending order of id
    sessions: Sessions
    training_events: Events  # before the training's end: of these may be learned
    known_events: Events  # before the test: what a system in service would have counted
    data_range: DataRange
    counts: Mapping[str, int]  # of what was read and what was left out
    description_chars: int = field(default=600)
    of_log: bool = False  # which goes on, so that the name does not say what was read

    @classmethod
    def from_log(
        cls,
        log: SegmentLog,
        settings: Settings,
        protocol: SplitProtocol = "temporal",
        until: Pins | None = None,
    ) -> Corpus:
        """The event log up to now, or up to the offsets `until` by topic and partition.

        Raises TrainingError if it is empty, EventLogError on holes.
        """
        source = LogSource(log, settings.windows.weights, until)
        return replace(read_corpus(source, settings, protocol), of_log=True)

    @classmethod
    def from_folder(
        cls, folder: Path, settings: Settings, protocol: SplitProtocol = "temporal"
    ) -> Corpus:
        """`items.parquet` and `interactions.parquet`. Raises TrainingError, ImportFailed."""
        return read_corpus(FolderSource(folder), settings, protocol)

    def at_validation(self) -> Corpus:
        """The corpus as it could be used when the validation began: nothing later is known."""
        return replace(self, known_events=self.training_events)

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        """Ascending; the order of every score matrix's columns."""
        return tuple(self.items)

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Item id → column."""
        return {item_id: row for row, item_id in enumerate(self.items)}

    def text_of(self, item_id: str) -> str:
        """Short text of an item, as a request carries it; empty for an unknown one."""
        return self._texts.get(item_id, "")

    @cached_property
    def _texts(self) -> Mapping[str, str]:
        return {item_id: item_text(item) for item_id, item in self.items.items()}

    def embedding_texts(self) -> tuple[tuple[str, ...], list[str]]:
        """(ids, texts for the embedder), in the order of `item_ids`."""
        texts = [embedding_text(item, self.description_chars) for item in self.items.values()]
        return self.item_ids, texts


def read_corpus(source: InteractionSource, settings: Settings, protocol: SplitProtocol) -> Corpus:
    """Read a source once for its times and once for its users."""
    spec, chosen = settings.windows, settings.train.sessions
    items = {item.item_id: item for item in sorted(source.items(), key=lambda item: item.item_id)}
    borders = temporal_borders(event_times(source, spec), chosen)
    _check(source, items, borders)
    reading = _Reading(items, borders, settings, protocol)
    for log in replay_users(source, spec):
        reading.take(log)
    return Corpus(
        name=source.name,
        protocol=protocol,
        spec=spec,
        items=items,
        sessions=reading.sessions(),
        training_events=reading.training.build(),
        known_events=reading.known.build(),
        data_range=DataRange(borders, dict(source.next_offsets())),
        counts=dict(reading.counts),
        description_chars=settings.embedder.description_chars,
    )


def _check(source: InteractionSource, items: Mapping[str, Item], borders: Borders) -> None:
    if borders.end == 0:
        raise TrainingError(f"{source.name}: no interactions to learn from")
    if not items:
        raise TrainingError(f"{source.name}: no items; send the catalogue (palate import items)")


class _Reading:
    """What has been made of the users read so far."""

    def __init__(
        self,
        items: Mapping[str, Item],
        borders: Borders,
        settings: Settings,
        protocol: SplitProtocol,
    ) -> None:
        self._items, self._borders, self._protocol = items, borders, protocol
        self._chosen, self._spec = settings.train.sessions, settings.windows
        rows = {item_id: row for row, item_id in enumerate(items)}
        self.training = EventsBuilder(rows, self._spec)
        self.known = EventsBuilder(rows, self._spec)
        self._found: dict[Split, list[Session]] = {"train": [], "validation": [], "test": []}
        self.counts: Counter[str] = Counter(items=len(items))

    def take(self, log: UserLog) -> None:
        """Add one user's sessions and events."""
        self.counts["users"] += 1
        self.counts["events"] += len(log.entries)
        if self._protocol == "temporal":
            self._take_by_time(log)
        else:
            self._take_by_position(log)

    def _take_by_time(self, log: UserLog) -> None:
        borders, positives = self._borders, Positives(log, self._spec)
        for split, session in temporal_sessions(positives, borders, self._chosen, self._knows):
            self._found[split].append(session)
        self.training.add(log.user_id, positives.before(borders.train_end))
        self.known.add(log.user_id, positives.before(borders.validation_end))
        self._count_unknown(log)

    def _take_by_position(self, log: UserLog) -> None:
        liked = Positives(log, self._spec).before(self._borders.end)
        known = tuple(entry for entry in liked if self._knows(entry.item_id))
        for split, session in left_out_sessions(log, known, self._chosen, self._spec):
            self._found[split].append(session)
        self.training.add(log.user_id, known[:-2])
        self.known.add(log.user_id, known[:-1])
        self._count_unknown(log)

    def _knows(self, item_id: str) -> bool:
        return item_id in self._items

    def _count_unknown(self, log: UserLog) -> None:
        unknown = sum(entry.item_id not in self._items for entry in log.entries)
        self.counts["events_of_unknown_items"] += unknown

    def sessions(self) -> Sessions:
        """Those found, in order of partition and user."""
        for split, found in self._found.items():
            self.counts[f"sessions_{split}"] = len(found)
        return Sessions(**{split: tuple(found) for split, found in self._found.items()})


def sample_users(sessions: Sequence[Session], users: int, seed: int) -> tuple[Session, ...]:
    """All sessions of at most `users` users, drawn with `seed`; in their given order."""
    names = sorted({session.user_id for session in sessions})
    if len(names) <= users:
        return tuple(sessions)
    drawn = set(random.Random(seed).sample(names, users))
    return tuple(session for session in sessions if session.user_id in drawn)


def newest_of_each(sessions: Sequence[Session]) -> list[Session]:
    """The newest session of each user, in order of user id."""
    newest: dict[str, Session] = {}
    for session in sessions:
        known = newest.get(session.user_id)
        if known is None or session.as_of > known.as_of:
            newest[session.user_id] = session
    return [newest[user] for user in sorted(newest)]

"""Every error Palate raises on purpose.

PalateError
├── SettingsError        a setting is missing, malformed or contradicts another
├── StackError           the local machine: port taken, disk full, tool missing, stale process
├── TopicError           a topic has the wrong shape, lost records, or was recreated
├── StateError           the tracker's state; its changelog has all of it
│   ├── PartitionLost        … of a partition that another worker owns, or that has to be read anew
│   ├── StoreDamaged         … as this machine keeps it cannot be read or written
│   └── RecordDamaged        … one record of it is none; `palate rebuild` makes that user's anew
├── EngineError          the language model could not answer
│   └── EngineUnavailable    … and may later: down, slow, overloaded (retry)
├── EmbedderError        the embedder's model is missing or answered with the wrong shape
├── VectorIndexError     the vector index is locked, missing, damaged or of another dimension
│   └── VectorIndexUnavailable   … or the machine refuses now: disk full, no right (retry)
├── SnapshotDamaged      a co-occurrence snapshot is not whole; it is made anew
├── EventLogError        a manifest or segment of the event log is missing or inconsistent
│   ├── ManifestLost         … a manifest, and its segments are there: they can be listed again
│   ├── OverlappingSegments  … two segments hold the same offset
│   └── SegmentDamaged       … one segment: it can be set apart, and the rest be read
├── ReleaseError         a release is unknown, incomplete or mutable where it must not be
│   └── ReleaseNotReady      … or not taken up yet: promoting it again may help
├── TrainingError        a training run cannot go on: no data, full disk, a loss that diverged
│   └── CheckpointMismatch   … from a checkpoint that another run has left
└── ImportFailed         a file to be imported cannot be read as what it claims to be

Every message says what happened, where (topic, partition, offset, user, file, line) and what
to do about it.
"""

from __future__ import annotations


class PalateError(Exception):
    """Root of the tree above; the command line prints it without a traceback."""


class SettingsError(PalateError):
    """A setting is missing, malformed or contradicts another."""


class StackError(PalateError):
    """The local machine cannot run what was asked."""


class TopicError(PalateError):
    """A topic has the wrong shape, lost records before they were logged, or was recreated."""


class StateError(PalateError):
    """The tracker's state cannot be used now; nothing of it is lost, the changelog has all."""


class PartitionLost(StateError):
    """A partition's state is no longer ours to write; what was not committed did not happen."""

    def __init__(self, partition: int, why: BaseException | None) -> None:
        super().__init__(f"partition {partition}: {why or 'not assigned'}")
        self.partition, self.why = partition, why


class StoreDamaged(StateError):
    """RocksDB cannot read or write a partition's folder."""


class RecordDamaged(StateError):
    """A record of the table `histories` is not what Palate writes under its key."""


class EngineError(PalateError):
    """The language model answered with something that cannot be used, and would again."""


class EngineUnavailable(EngineError):
    """The language model did not answer this time; trying again may help."""


class EmbedderError(PalateError):
    """The embedder's model is missing or its vectors have the wrong shape."""


class VectorIndexError(PalateError):
    """The vector index is locked by another writer, missing, damaged or of another dimension."""


class VectorIndexUnavailable(VectorIndexError):
    """The machine refuses to read or write it now, as on a full disk; trying again may help."""


class SnapshotDamaged(PalateError):
    """A co-occurrence snapshot is truncated or is none; the indexer makes it anew."""


class EventLogError(PalateError):
    """A manifest or segment of the event log is missing or inconsistent."""


class ManifestLost(EventLogError):
    """A partition's manifest is gone or cannot be understood, and segments are beside it."""


class OverlappingSegments(EventLogError):
    """Two segments hold the same offset: only one of them can be in the log."""


class SegmentDamaged(EventLogError):
    """A segment cannot be read whole. `file` is its name in the partition's folder."""

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file


class ReleaseError(PalateError):
    """A release is unknown, incomplete, or was changed after it was published."""


class ReleaseNotReady(ReleaseError):
    """A release was not taken up by every role in time; promoting it again goes on waiting."""


class TrainingError(PalateError):
    """Training cannot go on: too little data, a disk that is full, a loss that diverged."""


class CheckpointMismatch(TrainingError):
    """A checkpoint is of another run (model, settings, data), or of another version of Palate."""


class ImportFailed(PalateError):
    """A file to be imported cannot be read as what it claims to be."""

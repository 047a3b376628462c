"""Every error Palate raises on purpose.

PalateError
├── SettingsError        a setting is missing, malformed or contradicts another
├── StackError           the local machine: port taken, disk full, tool missing, stale process
├── TopicError           a topic has the wrong shape, lost records, or was recreated
├── EngineError          the language model could not answer
│   └── EngineUnavailable    … and may later: down, slow, overloaded (retry)
├── EmbedderError        the embedder's model is missing or answered with the wrong shape
├── VectorIndexError     the vector index is locked, missing or of another dimension
├── SnapshotDamaged      a co-occurrence snapshot is not whole; it is made anew
├── EventLogError        a manifest or segment of the event log is missing or inconsistent
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


class EngineError(PalateError):
    """The language model answered with something that cannot be used, and would again."""


class EngineUnavailable(EngineError):
    """The language model did not answer this time; trying again may help."""


class EmbedderError(PalateError):
    """The embedder's model is missing or its vectors have the wrong shape."""


class VectorIndexError(PalateError):
    """The vector index is locked by another writer, missing or of another dimension."""


class SnapshotDamaged(PalateError):
    """A co-occurrence snapshot is truncated or is none; the indexer makes it anew."""


class EventLogError(PalateError):
    """A manifest or segment of the event log is missing or inconsistent."""


class ReleaseError(PalateError):
    """A release is unknown, incomplete, or was changed after it was published."""


class ReleaseNotReady(ReleaseError):
    """A release was not taken up by every role in time; promoting it again goes on waiting."""


class TrainingError(PalateError):
    """Training cannot go on: too little data, a disk that is full, a loss that diverged."""


class CheckpointMismatch(TrainingError):
    """A checkpoint is of another run: its model, settings or data are not those of this one."""


class ImportFailed(PalateError):
    """A file to be imported cannot be read as what it claims to be."""

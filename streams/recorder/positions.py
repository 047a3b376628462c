"""Where recording resumes, and when it must not (architecture, property 7); pure."""

from __future__ import annotations

from models.errors import TopicError


def check_position(
    topic: str, partition: int, resume: int, beginning: int, end: int, accept_gap: bool
) -> int:
    """The offset to read on from: `resume`, the log's next offset.

    `beginning` and `end` are the topic's first kept offset and the one after its last. Raises
    TopicError if events were lost before they were logged, or if the topic is another one.
    """
    where = f"topic {topic} partition {partition}"
    if end < resume:
        raise TopicError(
            f"{where} ends before offset {end}, but offsets up to {resume - 1} are in the event "
            "log: the topic was deleted and made again. Keep the log of the old topic: set "
            "log.dir (PALATE_LOG__DIR) to a new folder, or use a new kafka.prefix"
        )
    if beginning > resume and not accept_gap:
        raise TopicError(
            f"{where} begins at offset {beginning}: offsets {resume}..{beginning - 1} expired "
            "unrecorded. If they are known to be lost, start the recorder once with "
            "log.accept_gap (PALATE_LOG__ACCEPT_GAP=true); the log then goes on from there. "
            "Retention (kafka.retention_days) must outlast a recorder's outage"
        )
    return max(resume, beginning)

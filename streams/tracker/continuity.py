"""Does the topic still continue where the state ends? (architecture, property 7); pure."""

from __future__ import annotations

import logging

from models.errors import TopicError

log = logging.getLogger(__name__)


def check_continuity(topic: str, partition: int, applied: int, beginning: int, end: int) -> None:
    """`applied` is the offset after the state's last one, 0 for an empty state.

    `beginning` and `end` are the topic's first kept offset and the one after its last. Raises
    TopicError if events between state and topic are gone, or if the topic is another one.
    """
    where = f"topic {topic} partition {partition}"
    if end < applied:
        raise TopicError(
            f"{where} ends before offset {end}, but the tracker's state holds events up to "
            f"{applied - 1}: the topic was deleted and made again. Use a new kafka.prefix, or "
            "remove the state (data_dir/state and the histories changelog topic)"
        )
    if beginning > applied > 0:
        raise TopicError(
            f"{where} begins at offset {beginning}, but the tracker's state ends at {applied}: "
            f"offsets {applied}..{beginning - 1} expired unread. If the event log has them, run "
            "`palate rebuild`; retention (kafka.retention_days) must outlast an outage"
        )
    if beginning > 0 and applied == 0:
        log.warning("%s begins at offset %s; older events are not in the state", where, beginning)

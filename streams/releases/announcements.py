"""Announcing a step of a release's life on topic `releases`."""

from __future__ import annotations

import logging
import time
from typing import Any

from aiokafka import AIOKafkaProducer

from models.ports import Release
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.codec import key_of
from streams.kafka.clients import deliver

log = logging.getLogger(__name__)


async def announce(
    producer: AIOKafkaProducer,
    settings: Settings,
    release: Release | str,
    status: str,
    by: str,
    **more: Any,
) -> ReleaseAnnouncement:
    """Send one step of a release (of its id, where the folder is gone), and await its arrival.

    `more`: `previous` and `detail` of the announcement, where they apply.
    """
    known = release if isinstance(release, Release) else None
    step = ReleaseAnnouncement.model_validate(
        {
            "release": known.id if known else release,
            "status": status,
            "manifest_sha256": known.manifest_sha256 if known else None,
            "at": time.time_ns() // 1_000_000,
            "by": by,
            **more,
        }
    )
    topic = settings.topic("releases")
    await deliver(producer, topic, step.to_json(), key=key_of(step))
    log.info("release %s: %s", step.release, status)
    return step

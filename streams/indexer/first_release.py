"""The release in force, and the announcement of the first one."""

from __future__ import annotations

import logging
import time

from aiokafka import AIOKafkaProducer

from models.errors import ReleaseError
from models.model_files import weight_files
from models.ports import Release, ReleaseStore
from models.releases import BASE_RELEASE, base_release
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.kafka import deliver

log = logging.getLogger(__name__)

STEPS = ("published", "items-ready", "serving")


def release_to_index(settings: Settings, store: ReleaseStore, serving: str | None) -> Release:
    """The serving release, or base-0, which is made if there is none.

    Raises ReleaseError if the configured embedder is not the release's: vectors would mix.
    """
    wanted = serving or BASE_RELEASE
    if wanted == BASE_RELEASE and BASE_RELEASE not in store.ids():
        made = base_release(settings, int(time.time() * 1000), weight_files(settings))
        release = store.publish(made)
    else:
        release = store.get(wanted)
    if release.embedder != settings.embedder.model:
        raise ReleaseError(
            f"release {release.id} embeds with {release.embedder!r}, embedder.model is "
            f"{settings.embedder.model!r}: set it back, or start with an empty data_dir"
        )
    return release


async def announce_first(producer: AIOKafkaProducer, settings: Settings, release: Release) -> None:
    """Publish the steps of a release's life up to `serving`."""
    for step in STEPS:
        announcement = ReleaseAnnouncement(
            release=release.id,
            status=step,
            manifest_sha256=release.manifest_sha256,
            at=int(time.time() * 1000),
            by="indexer",
        )
        topic = settings.topic("releases")
        await deliver(producer, topic, announcement.to_json(), key=release.id.encode())
    log.info("release %s serves", release.id)

"""The release in force, and the announcement of the first one."""

from __future__ import annotations

import time

from aiokafka import AIOKafkaProducer

from models.model_files import weight_files
from models.ports import Release, ReleaseStore
from models.releases import BASE_RELEASE, base_release
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.indexer.embedders import check_embedder
from streams.release_steps import announce

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
    check_embedder(settings, release)
    return release


async def announce_first(
    producer: AIOKafkaProducer, settings: Settings, release: Release
) -> list[ReleaseAnnouncement]:
    """Announce the steps of a release's life up to `serving`."""
    return [await announce(producer, settings, release, step, "indexer") for step in STEPS]

"""The release in force, and the announcement of the first one."""

from __future__ import annotations

import time

from aiokafka import AIOKafkaProducer

from models.errors import ReleaseError
from models.model_files import weight_files
from models.ports import Release, ReleaseStore
from models.release_fit import other_embedder
from models.releases import BASE_RELEASE, base_release
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from models.starter_release import fitting_starter
from streams.release_steps import announce

STEPS = ("published", "items-ready", "serving")


def release_to_index(settings: Settings, store: ReleaseStore, serving: str | None) -> Release:
    """The serving release; if there is none, the first one: the starter release or base-0.

    The first is made if it is not there yet. Raises ReleaseError if a release that serves is not
    on this machine, or if its embedder is not the configured one: vectors would mix.
    """
    if serving is None:
        release = _first(settings, store)
    elif serving == BASE_RELEASE and BASE_RELEASE not in store.ids():
        release = _base(settings, store)
    else:
        release = store.get(serving)
    reason = other_embedder(release, settings)
    if reason:
        raise ReleaseError(reason)
    return release


def _first(settings: Settings, store: ReleaseStore) -> Release:
    starter = fitting_starter(settings)
    if starter is not None:
        return store.publish(starter.release, starter.files)
    return _base(settings, store)


def _base(settings: Settings, store: ReleaseStore) -> Release:
    if BASE_RELEASE in store.ids():
        return store.get(BASE_RELEASE)
    made = base_release(settings, int(time.time() * 1000), weight_files(settings))
    return store.publish(made)


async def announce_first(
    producer: AIOKafkaProducer, settings: Settings, release: Release
) -> list[ReleaseAnnouncement]:
    """Announce the steps of a release's life up to `serving`."""
    return [await announce(producer, settings, release, step, "indexer") for step in STEPS]

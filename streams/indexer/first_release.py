"""The release in force, and the announcement of the first one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from models.engines.model_files import weight_files
from models.errors import ReleaseError
from models.ports import Release, ReleaseStore
from models.release.compatibility import other_embedder
from models.release.starter import fitting_starter
from models.release.store import BASE_RELEASE, base_release
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.releases import announce

STEPS = ("published", "items-ready", "serving")


def first_release(
    settings: Settings, store: ReleaseStore, in_force: Sequence[str]
) -> Release | None:
    """The release to be announced as serving; None if one is that need not be made anew.

    Where none was in force yet it is the starter release or base-0. Where the folder of base-0 was
    lost it is made again, with another manifest. Raises ReleaseError if the embedder of the first
    is not the configured one: vectors would mix.
    """
    if BASE_RELEASE in in_force and BASE_RELEASE not in store.ids():
        again = _base(settings, store)
        return again if in_force[0] == BASE_RELEASE else None
    if in_force:
        return None
    release = _starter_or_base(settings, store)
    reason = other_embedder(release, settings)
    if reason:
        raise ReleaseError(reason)
    return release


def _starter_or_base(settings: Settings, store: ReleaseStore) -> Release:
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

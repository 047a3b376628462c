"""Taking a release into force and back out of it, by records on topic `releases`.

A promotion is three waits and one record: the release is published as a candidate, the indexer
reports its tables whole, every live profiler shows that it has the adapter, then `serving` names
it. Whatever goes wrong before that record leaves the old release serving.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from models.errors import ReleaseError, ReleaseNotReady, StackError
from models.ports import InForce, Release, ReleaseStore
from models.release.compatibility import cannot_load, unfit
from models.schemas import ReleaseAnnouncement
from models.settings import Settings
from streams.kafka.clients import client_options, group_id, producer, start_client, until_answered
from streams.kafka.topic_follower import TopicFollower
from streams.profiler.replica import replica_of
from streams.releases import ServingRelease, announce

log = logging.getLogger(__name__)

BY: Final = "palate releases"
LOOK_EVERY_S: Final = 1.0  # at the members of the profilers' group


@dataclass(frozen=True, slots=True)
class CandidateProgress:
    """How far a candidate is. `engines` are the live profilers, `ready` those that have it."""

    items: bool
    profiles: bool
    engines: frozenset[str]
    ready: frozenset[str]
    refused: str | None = None

    @property
    def missing(self) -> str | None:
        """What is waited for, in words; None if nothing is."""
        if not self.items or not self.profiles:
            what = "item vectors" if not self.items else "profile vectors"
            return f"the indexer makes its {what}"
        if not self.engines:
            return "no profiler runs; palate up starts one"
        waiting = len(self.engines - self.ready)
        which = f"{waiting} of {len(self.engines)} profilers"
        return f"{which} load it, or wait for their engine" if waiting else None


SayProgress = Callable[[CandidateProgress], None]


@dataclass(frozen=True, slots=True)
class Topic:
    """Topic `releases`, followed and written to."""

    settings: Settings
    releases: ServingRelease
    producer: AIOKafkaProducer
    admin: AIOKafkaAdminClient

    async def say(self, release: Release, status: str, **more: Any) -> ReleaseAnnouncement:
        """Announce a step."""
        return await announce(self.producer, self.settings, release, status, BY, **more)

    async def live_profilers(self) -> frozenset[str]:
        """Names of the profilers that are members of their group now."""
        group = group_id(self.settings, "profiler")
        answers = await until_answered(  # a new broker makes its coordinator at the first call
            "members of the profilers' group", lambda: self.admin.describe_consumer_groups([group])
        )
        clients = [
            member[1] for answer in answers for found in answer.groups for member in found[5]
        ]
        replicas = (replica_of(client, self.settings) for client in clients)
        return frozenset(replica.name for replica in replicas if replica)


@asynccontextmanager
async def releases_topic(settings: Settings, within_s: float | None = None) -> AsyncIterator[Topic]:
    """Topic `releases`, read to its end.

    Raises StackError if Kafka or the topic is not there within `within_s` seconds; None:
    `kafka.answer_within_s`.
    """
    if within_s is None:
        within_s = settings.kafka.answer_within_s
    releases = ServingRelease()
    follower = TopicFollower(settings, "releases", releases.on_record)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(follower.stop)
        try:
            async with asyncio.timeout(within_s):
                await follower.start()
                await follower.caught_up()
                sender = await start_client(lambda: producer(settings))
                closing.push_async_callback(sender.stop)
                admin = await start_client(lambda: AIOKafkaAdminClient(**client_options(settings)))
                closing.push_async_callback(admin.close)
        except TimeoutError as error:
            raise StackError(
                f"topic {settings.topic('releases')} at {settings.kafka.bootstrap} cannot be read "
                f"within {within_s:g} s; palate up starts Kafka and makes the topics"
            ) from error
        yield Topic(settings, releases, sender, admin)


async def promote(
    topic: Topic,
    store: ReleaseStore,
    release_id: str,
    *,
    model_hash: str = "",
    instead_of: InForce | None = None,
    within_s: float = 900.0,
    say: SayProgress = lambda _: None,
) -> Release:
    """Make a published release the one in force; returns once its `serving` record is written.

    `model_hash` as in models.release.compatibility; `instead_of`: the release that must serve until
    then, without a break, for a candidate that was compared with no other. Raises ReleaseError,
    with the old release serving on, if the release is unknown or damaged, does not fit the settings
    or is refused by a role; ReleaseNotReady if it is not taken up within `within_s` seconds.
    """
    release = await asyncio.to_thread(store.verify, release_id)
    reason = unfit(release, topic.settings, model_hash)
    if reason:
        raise ReleaseError(reason)
    if announced(topic.releases) == release_id:
        raise ReleaseError(f"release {release_id!r} serves already")
    _require_serving(topic.releases, store, release, instead_of)
    await _until_ready(topic, release, within_s, say)
    _require_candidate(topic.releases, release)
    _require_serving(topic.releases, store, release, instead_of)
    await topic.say(release, "serving", previous=topic.releases.id)
    return release


async def rollback(topic: Topic, store: ReleaseStore, to: str | None = None) -> Release:
    """Make the previous release serve again, at once: its tables were kept up to date.

    Raises ReleaseError if there is none, or if `to` names another.
    """
    serving = announced(topic.releases)
    previous = _first_known(topic.releases.in_force[1:], store) or topic.releases.previous
    if previous is None:
        raise ReleaseError(
            f"no release is kept beside {serving!r}; palate releases promote ID makes an older "
            "one's tables anew"
        )
    if to is not None and to != previous:
        raise ReleaseError(
            f"only {previous!r} is kept beside {serving!r}; palate releases promote {to} makes "
            "its tables anew"
        )
    release = await asyncio.to_thread(store.verify, previous)
    reason = cannot_load(release, topic.settings)
    if reason:
        raise ReleaseError(reason)
    await topic.say(release, "serving", previous=serving)
    return release


def announced(releases: ServingRelease) -> str:
    """The release in force, of a topic that was read to its end. Raises ReleaseError if none is."""
    if releases.id is None:
        raise ReleaseError("no release serves yet; palate up makes the first one")
    return releases.id


def serving_of(releases: ServingRelease, store: ReleaseStore) -> str:
    """The release that serves: the one in force, or the newest before it that is in the store.

    Raises ReleaseError if there is none.
    """
    last = announced(releases)
    found = _first_known(releases.in_force, store)
    if found is None:
        raise ReleaseError(
            f"release {last!r} is announced as serving, and neither it nor one before it is in the "
            "store of releases; bring its folder, or palate releases promote another"
        )
    if found != last:
        log.warning("release %s is announced and not in the store: %s serves", last, found)
    return found


def in_force(releases: ServingRelease, store: ReleaseStore) -> InForce:
    """The release that serves, as `serving_of`, and when it was put in force."""
    serving = serving_of(releases, store)
    return InForce(serving, releases.since(serving))


def _first_known(releases: Iterable[str], store: ReleaseStore) -> str | None:
    for release in releases:
        with suppress(ReleaseError):
            return store.get(release).id
    return None


async def _make_candidate(topic: Topic, release: Release) -> None:
    """Publish it, unless it is the candidate already: its steps would be forgotten."""
    if topic.releases.candidate == release.id:
        return
    sent = await topic.say(release, "published")
    await topic.releases.until(
        lambda releases: any(
            step.status == "published" and step.at >= sent.at for step in releases.steps(release.id)
        )
    )


def _require_candidate(releases: ServingRelease, release: Release) -> None:
    if releases.candidate != release.id:
        raise ReleaseError(
            f"another promotion came between: {releases.candidate or releases.id!r} took the place "
            f"of {release.id!r}, which stays as it was. Promote it again"
        )


def _require_serving(
    releases: ServingRelease, store: ReleaseStore, release: Release, instead_of: InForce | None
) -> None:
    if instead_of is None:
        return
    serving = in_force(releases, store)
    if instead_of == serving:
        return
    anew = " again, after another" if instead_of.release == serving.release else ""
    raise ReleaseError(
        f"release {release.id!r} was compared with {instead_of.release!r}, and "
        f"{serving.release!r} serves now{anew}: it stays as it is. palate releases promote "
        f"{release.id} lets it serve all the same"
    )


async def _until_ready(topic: Topic, release: Release, within_s: float, say: SayProgress) -> None:
    missing: str | None = "its announcement does not come back from topic releases"
    try:
        async with asyncio.timeout(within_s):
            await _make_candidate(topic, release)
            progress = await progress_of(topic, release.id)
            while (missing := progress.missing) or progress.refused:
                say(progress)
                if progress.refused:
                    raise ReleaseError(f"release {release.id!r} is refused: {progress.refused}")
                _require_candidate(topic.releases, release)
                await asyncio.sleep(LOOK_EVERY_S)
                progress = await progress_of(topic, release.id)
    except TimeoutError as error:
        raise ReleaseNotReady(
            f"release {release.id!r} was not ready within {within_s:.0f} s: {missing}. "
            f"{topic.releases.id!r} serves on; promote it again to go on waiting"
        ) from error
    say(progress)


async def progress_of(topic: Topic, release_id: str) -> CandidateProgress:
    """How far the release is by its steps, and which profilers live now."""
    releases = topic.releases
    steps = releases.steps(release_id)
    refusals = [f"{step.by}: {step.detail}" for step in steps if step.status == "refused"]
    return CandidateProgress(
        items=releases.has(release_id, "items-ready"),
        profiles=releases.has(release_id, "profiles-ready"),
        engines=await topic.live_profilers(),
        ready=releases.by(release_id, "engine-ready"),
        refused="; ".join(refusals) or None,
    )

"""What topic `releases` says of serving, candidate and previous."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from models.errors import ReleaseError
from models.schemas import ReleaseAnnouncement
from streams.codec import key_of
from streams.releases import ServingRelease, unavailable

AT = 1_700_000_000_000


def step(release: str, status: str, by: str = "x", **more: object) -> ReleaseAnnouncement:
    values = {"release": release, "status": status, "at": AT, "by": by}
    return ReleaseAnnouncement.model_validate(values | more)


def record_of(one: ReleaseAnnouncement) -> SimpleNamespace:
    return SimpleNamespace(key=key_of(one), value=one.to_json(), partition=0, offset=0)


def after(*steps: ReleaseAnnouncement) -> ServingRelease:
    releases = ServingRelease()
    for one in steps:
        releases.on_record(record_of(one))
    return releases


def pointers(releases: ServingRelease) -> tuple[str | None, str | None, str | None]:
    return releases.id, releases.candidate, releases.previous


def test_a_published_release_is_the_candidate_until_it_serves():
    published = [step("a", "serving"), step("b", "published"), step("b", "items-ready")]
    assert pointers(after(*published)) == ("a", "b", None)
    assert pointers(after(*published, step("b", "serving"))) == ("b", None, "a")


def test_a_refused_or_retired_candidate_is_none_and_may_be_published_again():
    for end in ("refused", "retired"):
        ended = [step("a", "serving"), step("b", "published"), step("b", end)]
        assert pointers(after(*ended)) == ("a", None, None)
        assert pointers(after(*ended, step("b", "published"))) == ("a", "b", None)


def test_rolling_back_exchanges_serving_and_previous():
    served = [step("a", "serving"), step("b", "published"), step("b", "serving")]
    assert pointers(after(*served, step("a", "serving"))) == ("a", None, "b")


def test_serving_said_twice_changes_nothing():
    assert pointers(after(step("a", "serving"), step("b", "serving"), step("b", "serving"))) == (
        "b",
        None,
        "a",
    )


def test_a_retired_release_is_no_longer_previous():
    assert pointers(after(step("a", "serving"), step("b", "serving"), step("a", "retired"))) == (
        "b",
        None,
        None,
    )


def test_releases_in_force_are_known_newest_first_until_they_are_retired():
    served = [step("a", "serving"), step("b", "serving"), step("ghost", "serving", previous="x")]
    assert after(*served).in_force == ("ghost", "b", "a")
    assert after(*served).previous == "b"
    assert after(*served, step("b", "retired")).in_force == ("ghost", "a")
    assert after(*served, step("a", "serving")).in_force == ("a", "ghost", "b")


def test_steps_that_nobody_makes_of_the_serving_release_do_not_end_it():
    made = [step("a", "serving"), step("b", "items-ready"), step("b", "serving")]
    for status in ("published", "refused", "retired"):
        releases = after(*made, step("b", status))
        assert pointers(releases) == ("b", None, "a")
        assert releases.has("b", "items-ready")
    said_again = after(*made, step("b", "retired"), step("b", "serving"))
    assert not said_again.has("b", "retired")


def test_what_is_said_names_the_release_the_reason_and_what_to_do():
    said = unavailable("ghost", ReleaseError("there is no release 'ghost' in /releases"), "a")
    assert "release ghost is announced as serving" in said
    assert "no release 'ghost' in /releases. a serves on" in said
    assert "palate releases rollback" in said
    assert "no release before it" in unavailable("ghost", ReleaseError("gone"), None)


def test_a_replica_that_refuses_the_serving_release_does_not_end_it():
    assert after(step("a", "serving"), step("a", "refused", "profiler/1")).id == "a"


def test_steps_are_told_by_status_and_maker_and_begin_anew_with_publishing():
    releases = after(
        step("b", "published"),
        step("b", "engine-ready", "profiler/1"),
        step("b", "engine-ready", "profiler/2"),
    )
    assert releases.by("b", "engine-ready") == {"profiler/1", "profiler/2"}
    assert releases.has("b", "published")
    assert not releases.has("b", "items-ready")
    releases.take(step("b", "published"))
    assert releases.by("b", "engine-ready") == frozenset()


def test_what_cannot_be_read_and_tombstones_change_nothing():
    releases = after(step("a", "serving"))
    for value in (b"{", None, b'{"release":"b","status":"unheard-of","at":1}'):
        releases.on_record(SimpleNamespace(key=b"a", value=value, partition=0, offset=1))
    lost = step("b", "serving")  # under the key of another release compaction would remove it
    releases.on_record(SimpleNamespace(key=b"a", value=lost.to_json(), partition=0, offset=2))
    assert pointers(releases) == ("a", None, None)


def test_waiting_ends_with_the_record_waited_for():
    async def scenario() -> None:
        releases = after(step("a", "serving"))
        waiting = asyncio.create_task(releases.until(lambda found: found.id == "b"))
        await asyncio.sleep(0)
        releases.take(step("c", "published"))
        await asyncio.sleep(0)
        assert not waiting.done()
        releases.take(step("b", "serving"))
        await waiting

    asyncio.run(scenario())


def compacted(steps: list[ReleaseAnnouncement]) -> list[ReleaseAnnouncement]:
    """What compaction leaves: the last record of each key, at its place."""
    last = {key_of(one): place for place, one in enumerate(steps)}
    return [steps[place] for place in sorted(last.values())]


STATUSES = ["published", "items-ready", "engine-ready", "refused", "serving", "retired"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(STATUSES), st.sampled_from("xy")))
)
def test_a_compacted_topic_tells_the_same_as_the_whole_one(raw):
    releases, steps = ServingRelease(), []
    for release, status, by in raw:
        if release == releases.id and status in ("published", "serving", "retired"):
            continue  # nobody does that to the serving release
        steps.append(step(release, status, by, previous=releases.id))
        releases.take(steps[-1])
    assert pointers(after(*compacted(steps))) == pointers(releases)
    assert after(*compacted(steps)).in_force == releases.in_force
    if releases.candidate:
        kept = after(*compacted(steps))
        assert kept.by(releases.candidate, "items-ready") == releases.by(
            releases.candidate, "items-ready"
        )

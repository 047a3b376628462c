from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import TopicError
from streams.kafka import continuity
from streams.kafka.continuity import Kept, Present, TopicWatch, check_continuity
from streams.kafka.topics import ensure_topics
from tests.patience import HANG_S
from tests.streams.clients import delete_topic, make_again

offset = st.integers(0, 50)
topic_id = st.sampled_from([None, "", "a", "b"])


def kept(upto: int, topic_id: str | None = "a") -> Kept:
    return Kept("the event log", "t", 3, upto, topic_id, "Take another folder", "Accept it")


@given(offset, offset, offset, topic_id, topic_id, st.booleans())
def test_reading_resumes_where_the_reader_ended_or_not_at_all(
    resume, beginning, more, known, found, accept_gap
):
    end = beginning + more
    another = resume > 0 and {known, found} == {"a", "b"}
    try:
        position = check_continuity(kept(resume, known), Present(found, beginning, end), accept_gap)
    except TopicError:
        assert another or end < resume or (beginning > resume and not accept_gap)
    else:
        assert not another
        assert beginning <= position <= end
        assert position == resume or (accept_gap and beginning > resume)


def test_events_that_expired_unread_are_named():
    with pytest.raises(
        TopicError, match=r"topic t partition 3 .* offsets 5\.\.8 expired .* Accept"
    ):
        check_continuity(kept(5), Present("a", 9, 20), accept_gap=False)


@pytest.mark.parametrize("end", [4, 5, 6, 5_000])
def test_a_topic_made_again_is_refused_however_many_records_it_holds(end):
    with pytest.raises(TopicError, match=r"made again: its id was a and is b.*Take another"):
        check_continuity(kept(5), Present("b", 0, end), accept_gap=True)


def test_a_shorter_topic_is_refused_where_ids_are_not_known():
    with pytest.raises(TopicError, match="made again: it ends before offset 4"):
        check_continuity(kept(5, None), Present("", 0, 4), accept_gap=True)


def test_a_reader_that_holds_nothing_takes_any_topic():
    assert check_continuity(kept(0, "a"), Present("b", 0, 9), accept_gap=False) == 0


# -- on a real broker --------------------------------------------------------------------------


@pytest.fixture
def settings(kafka, make_settings):
    made = make_settings(kafka={"partitions": 2})
    asyncio.run(ensure_topics(made))
    return made


async def watched(settings, disturb, monkeypatch):
    """Watch two topics while one is disturbed."""
    monkeypatch.setattr(continuity, "WATCH_S", 0.05)
    watch = TopicWatch(settings, ("interactions", "items"))
    try:
        before = await watch.ids()
        assert before == await watch.ids()
        assert len(set(before.values())) == 2
        watching = asyncio.create_task(watch.failed())
        await disturb(settings, "items")
        async with asyncio.timeout(HANG_S):
            await watching
    finally:
        await watch.stop()


@pytest.mark.service
def test_a_topic_made_again_while_it_is_read_is_noticed(settings, monkeypatch):
    name = settings.topic("items")
    with pytest.raises(TopicError, match=f"topic {name} was deleted and made again while"):
        asyncio.run(watched(settings, make_again, monkeypatch))


@pytest.mark.service
def test_a_topic_deleted_while_it_is_read_is_noticed(settings, monkeypatch):
    monkeypatch.setattr(continuity, "GONE_S", 0.2)
    with pytest.raises(TopicError, match="was deleted while"):
        asyncio.run(watched(settings, delete_topic, monkeypatch))

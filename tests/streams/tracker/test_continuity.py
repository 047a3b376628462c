from __future__ import annotations

import pytest

from models.errors import TopicError
from streams.tracker.continuity import check_continuity


def test_a_topic_that_continues_the_state_is_accepted():
    check_continuity("interactions", 0, applied=5, beginning=3, end=9)
    check_continuity("interactions", 0, applied=0, beginning=3, end=9)


def test_a_topic_that_was_made_again_is_refused():
    with pytest.raises(TopicError, match="deleted and made again"):
        check_continuity("interactions", 0, applied=5, beginning=0, end=2)


def test_events_that_expired_unread_are_refused():
    with pytest.raises(TopicError, match=r"offsets 5..6 expired unread"):
        check_continuity("interactions", 0, applied=5, beginning=7, end=9)

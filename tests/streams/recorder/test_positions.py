from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import TopicError
from streams.recorder.positions import check_position

offset = st.integers(0, 50)


@given(offset, offset, offset, st.booleans())
def test_reading_resumes_where_the_log_ends_or_not_at_all(resume, beginning, more, accept_gap):
    end = beginning + more
    try:
        position = check_position("t", 0, resume, beginning, end, accept_gap)
    except TopicError:
        assert end < resume or (beginning > resume and not accept_gap)
    else:
        assert beginning <= position <= end
        assert position == resume or (accept_gap and beginning > resume)


def test_events_that_expired_unrecorded_are_named():
    with pytest.raises(TopicError, match=r"topic t partition 3 .* offsets 5\.\.8 expired"):
        check_position("t", 3, 5, 9, 20, accept_gap=False)


def test_a_recreated_topic_is_refused_even_if_gaps_are_accepted():
    with pytest.raises(TopicError, match="deleted and made again"):
        check_position("t", 0, 5, 0, 4, accept_gap=True)

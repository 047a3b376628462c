"""One border in time for everybody, and leave-one-out beside it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.training_settings import SessionSettings
from trainer.data.splits import Borders, Cut, leave_one_out, temporal_borders


def test_the_borders_give_each_split_its_share_of_the_events() -> None:
    times = np.arange(100)[::-1].copy()

    found = temporal_borders(times, SessionSettings(validation=0.1, test=0.2))

    assert found == Borders(first=0, train_end=70, validation_end=80, end=100)


def test_events_of_one_time_are_never_parted() -> None:
    times = np.array([1] * 5 + [2] * 5)

    found = temporal_borders(times, SessionSettings(validation=0.1, test=0.3))

    assert (found.train_end, found.validation_end) == (2, 2)  # places 6 and 7 both hold time 2


def test_without_events_there_is_no_time() -> None:
    assert temporal_borders(np.empty(0, np.int64), SessionSettings()) == Borders(0, 0, 0, 0)


@given(st.lists(st.integers(0, 10**12), min_size=1))
def test_the_splits_follow_each_other_without_gap_or_overlap(times: list[int]) -> None:
    spans = list(temporal_borders(np.array(times), SessionSettings()).spans())

    assert spans[0].since == min(times)
    assert spans[-1].until == max(times) + 1
    assert [span.until for span in spans[:-1]] == [span.since for span in spans[1:]]


def test_leave_one_out_takes_the_last_as_test_and_the_one_before_as_validation() -> None:
    settings = SessionSettings(min_history=2, horizon=2, per_user=10)

    assert leave_one_out(6, settings) == [
        Cut("test", 5, 6),
        Cut("validation", 4, 5),
        Cut("train", 3, 4),  # the horizon ends before the validation's item
        Cut("train", 2, 4),
    ]


def test_two_positives_are_too_few_to_leave_two_out() -> None:
    assert leave_one_out(2, SessionSettings()) == []

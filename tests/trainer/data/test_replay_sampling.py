"""A refresh trains on what is new and on as many old sessions as the setting says."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from models.training_settings import SessionSettings
from tests.trainer.users import session
from trainer.data.replay_sampling import Seen, chosen, steps_for

NONE = session("ada", ("tea",), ("cup",))


def sessions(*ends: int):
    return [replace(NONE, user_id=f"u{n}", last_target_time=end) for n, end in enumerate(ends)]


def test_the_first_training_takes_every_session() -> None:
    every = sessions(1, 2, 3)

    assert chosen(every, Seen(), SessionSettings()) == every


@given(
    st.lists(st.integers(0, 100), max_size=60), st.integers(0, 100), st.sampled_from([0.0, 0.5, 2])
)
def test_a_refresh_takes_all_that_is_new_and_old_ones_in_proportion(
    ends: list[int], since: int, replay: float
) -> None:
    every = sessions(*ends)
    found = chosen(every, Seen(since), SessionSettings(replay=replay))
    new = [one for one in every if one.last_target_time >= since]
    old = [one for one in found if one.last_target_time < since]

    assert [one for one in found if one not in old] == new
    assert len(old) == min(len(every) - len(new), round(replay * len(new)))
    assert found == [one for one in every if one in found]


def test_nothing_new_means_nothing_to_train_on() -> None:
    assert chosen(sessions(1, 2), Seen(3), SessionSettings()) == []


def test_what_is_imported_later_is_new_however_old_it_is() -> None:
    """Offsets of partition 0 below 7 were read; nothing of partition 1 was."""
    seen = Seen(train_end=100, next_offsets={0: 7})
    known, imported, past_training, elsewhere = (
        replace(NONE, user_id="ann", last_target_time=50, last_target_offset=6),
        replace(NONE, user_id="bob", last_target_time=50, last_target_offset=7),
        replace(NONE, user_id="cy", last_target_time=100, last_target_offset=6),
        replace(NONE, user_id="dan", last_target_time=50, last_target_offset=0, partition=1),
    )
    every = [known, imported, past_training, elsewhere]

    assert chosen(every, seen, SessionSettings(replay=0)) == [imported, past_training, elsewhere]


def test_steps_grow_with_the_examples_up_to_their_limit() -> None:
    assert [steps_for(n, 8, 1.0, 20) for n in (0, 1, 8, 9, 1000)] == [0, 1, 1, 2, 20]
    assert steps_for(16, 8, 2.0, 20) == 4

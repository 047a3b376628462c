"""Whatever is killed, promoted by hand, rolled back or set otherwise: what holds for all runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.ports import InForce
from tests.trainer.pipeline.world import BASE, LEAST, Trained, World
from trainer.pipeline.next_step import decide

KILLS = range(14)  # more points than a run has


class Runs:
    """Runs, kills, operators and settings; each method that is no check is one move."""

    def __init__(self) -> None:
        self.world = World(events=LEAST)
        self.world.store["by-hand"] = None

    def train(self) -> None:
        self._train()

    def train_and_be_held_back(self) -> None:
        self._train(gate_passes=False)

    def kill_while_learning(self) -> None:
        self._train("begun")

    def kill_after_the_release(self) -> None:
        self._train("made")

    def kill_after_a_release_that_is_held_back(self) -> None:
        self._train("made", gate_passes=False)

    def kill_after_the_promotion(self) -> None:
        self._train("promoted")

    def train_where_no_role_is_ready(self) -> None:
        self._train(promotion="not ready")

    def train_where_a_role_refuses(self) -> None:
        self._train(promotion="refused")

    def train_without_promotion(self) -> None:
        self.world.promotes = False
        self._train()

    def train_with_other_checkpoints(self) -> None:
        self.world.mismatch = True
        self._train()

    def _train(
        self, kill_at: str | None = None, gate_passes: bool = True, promotion: str = "works"
    ) -> None:
        world, before = self.world, len(self.world.promoted)
        world.now_ms += 1_000_000
        world.gate_passes, world.promotion = gate_passes, promotion
        there, serving = dict(world.all_made), world.serving
        was_served = {one.release for one in world.served}
        world.train(kill_at)
        world.promotes, world.mismatch = True, False
        for name in world.all_made.keys() - there.keys():
            self._is_no_repetition(name, there)
        for name in world.promoted[before:]:
            self._may_be_promoted(name, serving, was_served)

    def _is_no_repetition(self, name: str, there: dict[str, Trained]) -> None:
        """The same weights are never judged twice by the same settings once they are held back."""
        made = self.world.all_made[name]
        assert not [
            other
            for other, one in there.items()
            if other in self.world.store
            and not one.passed
            and (one.parent, one.read, one.learning, one.judging, one.log)
            == (made.parent, made.read, made.learning, made.judging, made.log)
            and all(at < one.read for at in self.world.wishes)  # else the log is read without them
        ]

    def _may_be_promoted(self, name: str, serving: InForce, was_served: set[str]) -> None:
        made = self.world.all_made[name]
        assert made.passed
        assert made.beside == serving
        assert self.world.promoted.count(name) == 1
        assert name not in was_served
        for rolled_back in was_served & self._descendants(serving.release):
            old = self.world.all_made[rolled_back]
            if (old.log, old.learning) == (made.log, made.learning):
                assert made.read >= old.read + LEAST, f"the rollback of {rolled_back} is undone"

    def _descendants(self, release: str) -> set[str]:
        found, made = {release}, self.world.all_made
        for name in sorted(made):
            if made[name].parent in found:
                found.add(name)
        return found - {release}

    def few_events_come(self) -> None:
        self.world.events += LEAST - 1

    def events_come(self) -> None:
        self.world.events += LEAST

    def promote_by_hand(self) -> None:
        """What no run has made."""
        self._put_in_force("by-hand")

    def promote_the_newest(self) -> None:
        """What the gate held back too."""
        self._put_in_force(max(self.world.store))

    def roll_back(self) -> None:
        self.world.roll_back()

    def go_back_to_the_first_release(self) -> None:
        self._put_in_force(BASE)

    def _put_in_force(self, release: str) -> None:
        if self.world.serving.release != release:
            self.world.put_in_force(release)

    def remove_the_newest(self) -> None:
        """One of whose verdict the record knows: else it would be made again, as it was."""
        newest = max(self.world.store)
        known = {one.release for one in self.world.records() if one.state != "planned"}
        if newest in known - {self.world.serving.release}:
            del self.world.store[newest]

    def set_the_gate_otherwise(self) -> None:
        self.world.judging = {"gate-1": "gate-2"}.get(self.world.judging, "gate-1")

    def set_learning_otherwise(self) -> None:
        self.world.learning = {"learning-1": "learning-2"}.get(self.world.learning, "learning-1")

    def forget_somebody(self) -> None:
        self.world.wishes.append(self.world.events)

    def make_the_log_anew(self) -> None:
        self.world.events, self.world.log, self.world.wishes = LEAST, self.world.log + 1, []

    def nothing_is_lost(self) -> None:
        """Check: every release of a run is named by one record, which says what became of it."""
        named = [name for record in self.world.records() for name in record.releases]
        assert {name for name, made in self.world.store.items() if made} <= set(named)
        assert len(named) == len(set(named))

    def all_is_settled_at_one_look(self) -> None:
        """Check: what is settled once stays so."""
        records = self.world.records()
        found = decide(records, self.world.stands(records))
        assert decide(found.records, self.world.stands(found.records)).settled == ()
        assert found.step.why

    def new_data_is_a_way_out(self) -> None:
        """Check: with enough events and a gate that lets pass, a run serves."""
        read = [one.until["interactions"][0] for one in self.world.records()]
        self.world.events = max([self.world.events, *read]) + LEAST
        before = len(self.world.promoted)
        for _ in range(3):  # the first ones may tell what was left
            self._train()
        assert len(self.world.promoted) > before


MOVES = [
    name
    for name, value in vars(Runs).items()
    if not name.startswith("_") and not (value.__doc__ or "").startswith("Check")
]


@st.composite
def moves(draw: st.DrawFn) -> list[str]:
    """Few kinds in one story: so that those which have to do with each other meet."""
    kinds = draw(st.lists(st.sampled_from(MOVES), min_size=2, max_size=4, unique=True))
    return draw(st.lists(st.sampled_from(["train", *kinds]), min_size=3, max_size=9))


HELD_BACK, FORCED = "train_and_be_held_back", "promote_the_newest"
GATE, LEARNING = "set_the_gate_otherwise", "set_learning_otherwise"
BACK = "go_back_to_the_first_release"


@hypothesis_settings(max_examples=800)
@given(moves())
@example(["kill_after_the_promotion", "roll_back", "train"])
@example(["train", "events_come", "train", BACK, "train"])
@example(["train", "roll_back", "remove_the_newest", "train"])
@example(["train_without_promotion", FORCED, "roll_back", "remove_the_newest", "train"])
@example([HELD_BACK, GATE, HELD_BACK, GATE, HELD_BACK])
@example([HELD_BACK, FORCED, "roll_back", GATE, "train"])
@example([HELD_BACK, GATE, "kill_while_learning", "promote_by_hand", BACK, "train"])
@example([HELD_BACK, GATE, "kill_while_learning", FORCED, BACK, "train"])
@example([HELD_BACK, GATE, "kill_while_learning", LEARNING, HELD_BACK, LEARNING, GATE, HELD_BACK])
@example(
    ["train_without_promotion", LEARNING, "kill_while_learning", FORCED, BACK, LEARNING, "train"]
)
def test_nothing_is_lost_undone_or_done_twice(story: list[str]) -> None:
    runs = Runs()
    for move in story:
        getattr(runs, move)()
        runs.nothing_is_lost()
        runs.all_is_settled_at_one_look()
    runs.new_data_is_a_way_out()


def run_of(world: World) -> tuple[list[str], dict[str, Trained | None], list[str]]:
    """What came of all runs."""
    return world.promoted, world.store, [one.release for one in world.served]


@pytest.mark.parametrize("gate_passes", [True, False])
@pytest.mark.parametrize("promotes", [True, False])
@pytest.mark.parametrize("kill_at", KILLS)
def test_a_run_that_is_killed_anywhere_ends_as_if_it_had_not_been(
    tmp_path: Path, gate_passes: bool, promotes: bool, kill_at: int
) -> None:
    straight, killed = (
        World(tmp_path / name, LEAST, gate_passes=gate_passes, promotes=promotes)
        for name in ("straight", "killed")
    )
    straight.train()
    killed.train(kill_at)
    killed.train()
    killed.train()

    assert run_of(killed) == run_of(straight)
    states = [[(one.run, one.state) for one in world.records()] for world in (straight, killed)]
    assert states[0] == states[1]


@pytest.mark.parametrize("kill_at", KILLS)
def test_a_run_that_is_judged_again_can_be_killed_anywhere(tmp_path: Path, kill_at: int) -> None:
    world = World(tmp_path, LEAST, gate_passes=False)
    world.train()
    world.judging, world.gate_passes = "gate-2", True
    world.train(kill_at)
    world.train()

    (record,) = world.records()
    assert record.state == "promoted"
    assert world.promoted == [record.release] != [record.run]
    assert list(record.refused) == [record.run]

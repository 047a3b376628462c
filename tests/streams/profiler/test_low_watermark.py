from __future__ import annotations

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from streams.profiler.low_watermark import LowWatermark

P0, P1 = TopicPartition("t", 0), TopicPartition("t", 1)

steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "done", "done", "forget"]),
        st.sampled_from([P0, P1]),
        st.integers(0, 12),
    ),
    max_size=60,
)


class Oracle:
    """Every offset begun and not finished, in plain sets."""

    def __init__(self):
        self.open, self.begun = {}, {}

    def start(self, partition, offset):
        self.open.setdefault(partition, set()).add(offset)
        self.begun.setdefault(partition, set()).add(offset)

    def done(self, partition, offset):
        self.open.get(partition, set()).discard(offset)

    def forget(self, partition):
        self.open.pop(partition, None)
        self.begun.pop(partition, None)

    def committable(self):
        return {
            partition: min(self.open[partition], default=max(begun) + 1)
            for partition, begun in self.begun.items()
        }


@given(steps)
def test_committable_is_the_lowest_unfinished_offset_whatever_the_order(taken):
    watermark, oracle = LowWatermark(), Oracle()
    for verb, partition, offset in taken:
        if verb == "forget":
            watermark.forget([partition])
            oracle.forget(partition)
        else:
            getattr(watermark, verb)(partition, offset)
            getattr(oracle, verb)(partition, offset)
        assert watermark.committable() == oracle.committable()
        assert watermark.unfinished() == sum(map(len, oracle.open.values()))


@given(st.permutations(range(8)))
def test_a_restart_at_the_committable_offset_loses_no_unfinished_record(order):
    watermark = LowWatermark()
    for offset in range(8):
        watermark.start(P0, offset)
    finished: set[int] = set()
    for offset in order:
        watermark.done(P0, offset)
        finished.add(offset)
        assert set(range(watermark.committable()[P0])) <= finished
    assert watermark.committable() == {P0: 8}


def test_nothing_is_committable_before_anything_began():
    assert LowWatermark().committable() == {}


def test_holes_in_the_offsets_are_passed_over():
    watermark = LowWatermark()
    for offset in (3, 7, 20):
        watermark.start(P0, offset)
    watermark.done(P0, 3)
    assert watermark.committable() == {P0: 7}
    watermark.done(P0, 20)
    watermark.done(P0, 7)
    assert watermark.committable() == {P0: 21}


def test_partitions_do_not_hold_each_other_up():
    watermark = LowWatermark()
    watermark.start(P0, 5)
    watermark.start(P1, 9)
    watermark.done(P1, 9)
    assert watermark.committable() == {P0: 5, P1: 10}


def test_work_that_ends_after_the_partition_was_taken_away_changes_nothing():
    watermark = LowWatermark()
    watermark.start(P0, 5)
    watermark.forget([P0])
    watermark.done(P0, 5)
    assert watermark.committable() == {}

"""What time it is for a user: pure functions of event times and of Kafka's times.

`now` is each user's own: the event time of their newest event, moved on by the time that has
passed in their partition since it arrived. Time passes in a partition as wall time does, and
faster where the bulk of its users say so, as in a replay. What is gained on the wall is an
estimate, off by as much as some visits lie apart; a user's own next event corrects it.

- A visit is an event of a user who is not among the last `VISITORS` visitors.
- The front is the event time that four of these visitors have reached at least. A visit that is
  older than the front, by more than `LATENESS_S`, is out of order.
- The visitors agree while at most `STRAY` of their visits are out of order, and more than `STRAY`
  are by users who had been there before.
- While they agree, the time that all but `STRAY` of them have reached counts as passed; while they
  do not, nothing counts, and what lies before the front never will.

So one user's events move nobody else's `now`, whatever they say: it takes thirteen of sixteen
visitors. A file sorted by user moves nobody's, for whoever comes is new or has not left; nor does
a shuffled one, for it has no order. Nor do years that pass a second time, in another file: time
passes for nobody beyond the latest that was ever counted as passed. The wall is overtaken by
nothing but a user's own events.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final, NamedTuple
from zlib import crc32

NEVER: Final = -1
AGES: Final = 2**53  # ms; longer than all time
VISITORS: Final = 16  # enough to tell an order from chance; a replay is behind by their visits
STRAY: Final = 3  # of them may say anything
LATENESS_S: Final = 86_400  # events of one day may come in any order; some data has only days
FAR_AHEAD_MS: Final = 30 * 86_400_000  # of the front: no lateness, but another clock


class Visit(NamedTuple):
    """A user came: their first event after `VISITORS` others had come, or ever."""

    user: int  # crc32 of the user's id
    event_time: int  # epoch seconds, which is what the state keeps
    returned: bool  # events of the user had been applied before
    in_order: bool


class PartitionClock(NamedTuple):
    """How much faster than wall time event time has passed in one partition."""

    seen: int = NEVER  # greatest Kafka time of an event, epoch ms
    gained: int = 0  # ms that have passed in event time beyond those of the wall
    behind: int = 0  # ms from `counted` to `passed`
    visits: tuple[Visit, ...] = ()  # the last ones, oldest first
    furthest: int = -AGES  # ms from the wall to the latest event time that was ever gained

    def see(
        self, user_id: str, event_time: int, kafka_time: int, *, returned: bool
    ) -> PartitionClock:
        """The clock after an event of the user (times in epoch ms)."""
        seen, user = max(self.seen, kafka_time), crc32(user_id.encode())
        if user in map(_user, self.visits):
            return self._replace(seen=seen)
        seconds = event_time // 1000
        in_order = seconds >= _front(sorted(map(_event_time, self.visits))) - LATENESS_S
        visits = (*self.visits, Visit(user, seconds, returned, in_order))[-VISITORS:]
        return self._replace(seen=seen, visits=visits)._follow()

    def would_visit(self, user_id: str) -> bool:
        """Whether the user's next event is a visit: it must not be one that was known before."""
        return crc32(user_id.encode()) not in map(_user, self.visits)

    def _follow(self) -> PartitionClock:
        """Count what the visitors have reached as passed, if they agree."""
        times = sorted(map(_event_time, self.visits))
        reached, front = times[min(STRAY, len(times) - 1)] * 1000, _front(times) * 1000
        counted = self.counted(self.seen)
        if len(times) < VISITORS:
            return self._counting_up_to(front)
        if not self._agreed():
            return self._counting_up_to(max(counted, front))
        if reached > counted:
            furthest = max(self.furthest, reached - self.seen)
            return self._replace(gained=self.gained + reached - counted, furthest=furthest)
        return self._counting_up_to(min(counted, times[-1] * 1000))

    def _counting_up_to(self, event_time: int) -> PartitionClock:
        return self._replace(behind=self.passed(self.seen) - event_time)

    def _agreed(self) -> bool:
        ordered, returned = sum(map(_in_order, self.visits)), sum(map(_returned, self.visits))
        return ordered >= VISITORS - STRAY and returned > STRAY

    def passed(self, wall: int) -> int:
        """The partition's time at `wall`: only differences of it mean anything."""
        return wall + self.gained

    def counted(self, wall: int) -> int:
        """Event time up to which time is counted as passed; the wall before any event."""
        return self.passed(wall) - self.behind

    def bulk(self, wall: int) -> int:
        """Event time that four of the last visitors have reached at least."""
        return max(self.counted(wall), _front(sorted(map(_event_time, self.visits))) * 1000)

    def now(self, wall: int, newest: int, lead: int, gained: int) -> int:
        """Event time at `wall` for a user whose newest event is of time `newest`.

        `lead`: how far the event that was furthest ahead of Kafka's time then was so; `gained`:
        what the partition had gained when the newest event arrived.
        """
        passed = min(self.gained - gained, max(0, self.furthest - lead))
        return max(newest, min(wall, wall + lead + passed))


_user: Final = itemgetter(0)
_event_time: Final = itemgetter(1)
_returned: Final = itemgetter(2)
_in_order: Final = itemgetter(3)


def _front(times: list[int]) -> int:
    """Of ascending times the one that `STRAY` others are later than, or the first; 0 of none."""
    return times[max(0, len(times) - 1 - STRAY)] if times else 0

"""Agent path = replay path = naive oracle (architecture, property 3)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from models.schemas import Interaction, Windows
from models.settings import DAY_S, Settings
from streams.replay import Replay
from streams.tracker.profile_requests import build_request
from streams.tracker.reducer import Arrival, apply_interactions
from streams.tracker.state import load, store
from streams.triggers import Due
from streams.windows import to_windows, views, windows_hash

START = 1_300_000_000_000
DAY_MS = int(DAY_S * 1000)
SPANS = {"long_days": 300, "medium_days": 40, "short_hours": 72, "short_cap": 4, "medium_cap": 9}
NUMBERS = 61  # different event ids
KINDS = ("impression", "view", "click", "cart", "purchase", "rating", "cancel", "hide")


def interaction(number: int, day: int, kind: str, item: int, rating: int, user: int) -> Interaction:
    return Interaction(
        event_id=f"event-{number}",
        user_id=f"user-{user}",
        item_id=f"item-{item}",
        type=kind,
        timestamp=START + day * DAY_MS // 4,
        rating=rating if kind == "rating" else None,
    )


logs = st.lists(
    st.builds(
        interaction,
        number=st.integers(0, NUMBERS - 1),
        day=st.integers(0, 1600),
        kind=st.sampled_from(KINDS),
        item=st.integers(0, 6),
        rating=st.integers(1, 5),
        user=st.integers(0, 2),
    ),
    min_size=1,
    max_size=150,
)


@dataclass
class Agent:
    """The tracker's path without Kafka: states in a table, batches, crashes, redelivery."""

    spec: Settings
    table: dict[bytes, bytes] = field(default_factory=dict)

    def apply(self, batch: list[tuple[int, Interaction]], cut: int | None) -> None:
        by_user: dict[str, list[Arrival]] = {}
        for offset, one in batch:
            by_user.setdefault(one.user_id, []).append(Arrival(one, offset, 0))
        records = [record for user, found in by_user.items() for record in self._user(user, found)]
        for key, value in records[:cut]:
            if value is None:
                self.table.pop(key, None)
            else:
                self.table[key] = value

    def _user(self, user_id: str, arrivals: list[Arrival]):
        user = load(user_id, self.table.get, self.spec.windows.history_cap)
        inserted = apply_interactions(user, arrivals, self.spec.windows, Counter())
        return list(store(user, inserted)) if inserted else []

    def request(self, user_id: str, as_of: int):
        user = load(user_id, self.table.get, self.spec.windows.history_cap)
        return build_request(user, 0, Due(1.0, "evidence"), as_of, START, self.spec, str.upper)


def replayed(
    log: list[Interaction], user_id: str, upto: int, as_of: int, spec: Settings
) -> Windows:
    replay = Replay(spec.windows)
    for offset, one in enumerate(log[: upto + 1]):
        replay.take(one, offset)
    return to_windows(views(replay.history(user_id), as_of, spec.windows), str.upper)


def naive(log: list[Interaction], user_id: str, upto: int, as_of: int, spec: Settings):
    """Event ids by window, from the definitions alone."""
    w = spec.windows
    first: dict[str, Interaction] = {}
    for one in log[: upto + 1]:
        if one.user_id == user_id and one.type != "impression":
            first.setdefault(one.event_id, one)
    held = sorted(first.values(), key=lambda one: (one.timestamp, one.event_id))
    held = [one for one in held[-w.history_cap :] if one.timestamp <= as_of]
    paired: set[str] = set()
    for place, one in enumerate(held):
        if one.type == "cancel":
            bought = [
                other.event_id
                for other in held[:place]
                if other.type == "purchase" and other.item_id == one.item_id
            ]
            unpaired = [event_id for event_id in bought if event_id not in paired]
            paired.update(unpaired[-1:])
    bad = [
        (place, one)
        for place, one in enumerate(held)
        if one.type in ("cancel", "hide") or (one.type == "rating" and one.rating <= w.low_rating)
    ]
    avoided = [
        one
        for place, one in bad
        if not any(
            later.type == "purchase"
            and later.item_id == one.item_id
            and later.event_id not in paired
            for later in held[place + 1 :]
        )
    ]
    disliked = {one.event_id for _, one in bad}
    liked = [one for one in held if one.event_id not in disliked | paired]

    def within(found: list[Interaction], days: float, cap: int) -> list[str]:
        return [one.event_id for one in found if one.timestamp > as_of - days * DAY_MS][-cap:]

    return {
        "long": within(liked, w.long_days, w.long_cap),
        "medium": within(liked, w.medium_days, w.medium_cap),
        "short": within(liked, w.short_hours / 24, w.short_cap),
        "avoids": within(avoided, w.long_days, w.avoids_cap),
    }


@settings(max_examples=120)
@given(logs, st.integers(3, 90), st.integers(0, 10_000), st.booleans())
def test_requests_equal_the_replay_and_the_definitions(log, cap, seed, conflicting):
    """With duplicates, disorder, restarts and redelivery; with other events under a known id, too.

    Of those the first counts for as long as it is in the history: one that was pushed out of it
    is forgotten with its id. There the definitions know better, and only the replay must agree.
    """
    random, unique = Random(seed), dict[str, Interaction]()
    if not conflicting:  # a re-sent event is the same
        log = [unique.setdefault(one.event_id, one) for one in log]
    log += random.sample(log, len(log) // 3)
    spec = Settings(windows={**SPANS, "history_cap": cap})
    agent, committed, offset = Agent(spec), 0, 0
    while offset < len(log):
        size = random.randint(1, 40)
        batch = list(enumerate(log))[committed : offset + size]
        if random.random() < 0.2:  # killed while it was writing; all since the commit comes again
            agent.apply(batch, cut=random.randrange(50))
            continue
        agent.apply(batch, cut=None)
        offset = min(offset + size, len(log))
        committed = random.choice([committed, offset])
        user_id, as_of = f"user-{random.randrange(3)}", START + random.randrange(500) * DAY_MS
        request = agent.request(user_id, as_of)
        again = replayed(log, user_id, request.applied_offset, as_of, spec)
        assert request.windows == again
        assert request.windows_hash == windows_hash(again)
        if conflicting and cap < NUMBERS:
            continue
        expected = naive(log, user_id, request.applied_offset, as_of, spec)
        found = {
            name: [entry.event_id for entry in getattr(request.windows, name)] for name in expected
        }
        assert found == expected

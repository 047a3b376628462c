"""The log replayed = the tracker's functions = a naive oracle: duplicates, disorder, restarts."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.identity import text_hash
from models.profile.prompts import PROMPT_VERSION, render
from models.schemas import Interaction, Profile, ProfileRequest, Sections
from models.settings import Settings, load_settings
from streams.event_log import SegmentLog
from streams.parity import ParityReport, check_parity
from streams.replay import replay_histories
from streams.tracker.profile_requests import build_request
from streams.tracker.reducer import Arrival, apply_interactions
from streams.tracker.state import load, store
from streams.triggers import Due
from streams.windows import HistoryEntry, entry_of
from tests.streams.logged import NOW, record, record_of

HOUR = 3_600_000
CAP = 5
TEXTS = {"tea": "black tea", "cup": "blue cup", "jam": ""}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        data_dir=tmp_path_factory.mktemp("data"),
        kafka={"partitions": 1},
        windows={
            **{"history_cap": CAP, "long_days": 3.0, "medium_days": 1.0, "short_hours": 6.0},
            **{"long_cap": 4, "medium_cap": 3, "short_cap": 2},
        },
    )


@st.composite
def streams(draw: st.DrawFn) -> list[Interaction]:
    """Interactions of few users in any order of event time, some of them sent twice."""
    events = [
        Interaction(
            event_id=f"e{number}",
            user_id=draw(st.sampled_from(["ann", "bob"])),
            item_id=draw(st.sampled_from(["tea", "cup", "jam"])),
            type=draw(st.sampled_from(["impression", "purchase", "cancel", "rating", "hide"])),
            timestamp=NOW - draw(st.integers(0, 96)) * HOUR,
            rating=draw(st.sampled_from([1.0, 5.0])),
        )
        for number in range(draw(st.integers(1, 20)))
    ]
    again = draw(st.lists(st.sampled_from(events), max_size=8))
    return draw(st.permutations(events + again))


class Agent:
    """The tracker's functions over a table in memory."""

    def __init__(self, settings: Settings, stream: list[Interaction]) -> None:
        self.settings, self.stream = settings, stream
        self.table: dict[bytes, bytes] = {}
        self.position = 0
        self.requests: list[ProfileRequest] = []

    def advance(self, count: int) -> None:
        """Apply the next batch: one read and one write of the state per user."""
        arrivals = defaultdict(list)
        for offset in range(self.position, min(self.position + count, len(self.stream))):
            event = self.stream[offset]
            arrivals[event.user_id].append(Arrival(event, offset, NOW))
        for user_id, events in arrivals.items():
            user = load(user_id, self.table.get, CAP)
            inserted = apply_interactions(user, events, self.settings.windows, Counter())
            for key, value in store(user, inserted):
                self._write(key, value)
        self.position = min(self.position + count, len(self.stream))

    def restart(self, back: int) -> None:
        """Records since the last commit come again; the state is what the table holds."""
        self.position = max(0, self.position - back)

    def ask(self, hours: int) -> None:
        """Requests for all users, at an event time."""
        for user_id in ("ann", "bob"):
            user = load(user_id, self.table.get, CAP)
            as_of, due = NOW - hours * HOUR, Due(1.0, "evidence")
            self.requests.append(
                build_request(user, 0, due, as_of, NOW, self.settings, TEXTS.__getitem__)
            )

    def _write(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.table.pop(key, None)
        else:
            self.table[key] = value


def profile_of(request: ProfileRequest, number: int) -> Profile:
    return Profile(
        **request.model_dump(include={"user_id", "as_of", "request_id", "rule", "windows_hash"}),
        profile_id=f"p{number}",
        version=request.number,
        applied_offset=request.applied_offset,
        sections=Sections(),
        text="…",
        release="base-0",
        model="m",
        prompt_version=PROMPT_VERSION,
        prompt_hash=text_hash(render(request)),
        vector=(1.0,),
        vector_release="base-0",
        created_at=NOW,
    )


def oracle(stream: list[Interaction], user_id: str) -> tuple[HistoryEntry, ...]:
    """The newest CAP distinct events of a user, by event time and id."""
    first = {}
    for offset, event in enumerate(stream):
        if event.user_id == user_id and event.type != "impression":
            first.setdefault(event.event_id, entry_of(event, offset))
    return tuple(sorted(first.values(), key=lambda entry: entry.key)[-CAP:])


def without_offsets(history: tuple[HistoryEntry, ...]) -> list[tuple[int, str, str]]:
    return [(entry.timestamp, entry.event_id, entry.item_id) for entry in history]


steps = st.lists(
    st.tuples(st.sampled_from(["advance", "restart", "ask"]), st.integers(1, 12)), max_size=15
)


def run(agent: Agent, plan: list[tuple[str, int]]) -> None:
    for action, amount in plan:
        getattr(agent, action)(amount)
    agent.advance(len(agent.stream))
    agent.ask(0)


def logged(folder: str, settings: Settings, agent: Agent) -> SegmentLog:
    log = SegmentLog(Path(folder))
    profiles = [profile_of(request, n) for n, request in enumerate(agent.requests)]
    for topic, found in (
        ("interactions", agent.stream),
        ("profile-requests", agent.requests),
        ("profiles", profiles),
    ):
        rows = [record_of(topic, 0, offset, message) for offset, message in enumerate(found)]
        record(log, settings, rows)
    return log


@given(streams(), steps)
@hypothesis_settings(max_examples=50)
def test_agent_replay_and_oracle_have_the_same_histories(
    settings: Settings, stream: list[Interaction], plan: list[tuple[str, int]]
) -> None:
    agent = Agent(settings, stream)
    run(agent, plan)
    with tempfile.TemporaryDirectory() as folder:
        log = logged(folder, settings, agent)
        replayed = {user.user_id: user for user in replay_histories(log, settings, 0)}
    for user_id in ("ann", "bob"):
        user = load(user_id, agent.table.get, CAP)
        expected = oracle(stream, user_id)
        assert without_offsets(user.history) == without_offsets(expected)
        if user_id in replayed:
            assert replayed[user_id].history == user.history
            assert replayed[user_id].applied_offset == user.head.applied
        else:
            assert expected == ()


def check(settings: Settings, agent: Agent) -> ParityReport:
    with tempfile.TemporaryDirectory() as folder:
        return check_parity(logged(folder, settings, agent), settings)


@given(streams(), steps)
@hypothesis_settings(max_examples=50)
def test_every_request_and_profile_of_the_agent_passes_the_check(
    settings: Settings, stream: list[Interaction], plan: list[tuple[str, int]]
) -> None:
    agent = Agent(settings, stream)
    run(agent, plan)
    report = check(settings, agent)
    assert report.mismatches == []
    assert report.requests == report.profiles == len(agent.requests)
    assert report.waiting == report.other_prompts == 0

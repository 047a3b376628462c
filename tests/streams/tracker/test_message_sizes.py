"""Whatever a user does, what is made for them fits into one record."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.ranking.catalogue import Catalogue
from models.ranking.reasons import PARTS, Chosen, Known, explain
from models.schemas import Interaction, ProfileEdit, ProfileRequest, Recommendation, Sentence
from models.settings import Settings, load_settings
from streams.codec import MAX_VALUE_BYTES, decode
from streams.event_log import SegmentLog
from streams.parity import check_parity
from streams.partition_clock import PartitionClock
from streams.tracker.profile_requests import build_request
from streams.tracker.reducer import Arrival, apply_edit, apply_interactions
from streams.tracker.state import User, store
from streams.triggers import Due
from tests.streams.logged import NOW, record, record_of

LETTERS = st.sampled_from(["\U0001f600", "\x01", "\x1f", '"', "\\", "a", "की"])
KINDS = st.sampled_from(["view", "rating", "hide", "purchase"])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder, windows = tmp_path_factory.mktemp("data"), {"medium_cap": 500, "short_cap": 500}
    return load_settings(data_dir=folder, kafka={"partitions": 1}, windows=windows)


def long_id(number: int, letter: str) -> str:
    return (f"{number}-" + letter * 256)[:256]


def events(letter: str, kind: str, count: int = 500) -> list[Interaction]:
    return [
        Interaction(
            event_id=long_id(number, letter),
            user_id=letter * (256 // len(letter)),
            item_id=long_id(number, letter),
            type=kind,
            timestamp=NOW + number,
            rating=1 if kind == "rating" else None,
            review=letter * (20_000 // len(letter)),
        )
        for number in range(count)
    ]


def user_of(made: list[Interaction], settings: Settings, letter: str) -> User:
    user = User(made[0].user_id)
    arrivals = [Arrival(one, offset, NOW + offset) for offset, one in enumerate(made)]
    apply_interactions(user, arrivals, settings.windows, Counter())
    for number in range(120):
        text = (f"{number} " + letter * 2_000)[:2_000]
        action = ("pin", "forbid")[number % 2]
        edit = ProfileEdit(
            edit_id=f"{number}", user_id=user.user_id, action=action, text=text, timestamp=NOW
        )
        apply_edit(user, edit, number, NOW)
    for section in ("stable", "current", "now", "avoids"):
        edit = ProfileEdit(
            edit_id=section,
            user_id=user.user_id,
            action="replace",
            section=section,
            text=letter * (2_000 // len(letter)),
            timestamp=NOW,
        )
        apply_edit(user, edit, user.head.edits + 1, NOW)
    return user


def request_of(user: User, settings: Settings) -> ProfileRequest:
    text, due = "\U0001f600" * 120, Due(1.0, "evidence")
    return build_request(user, 0, due, NOW + 1_000, NOW, settings, lambda _: text)


@given(LETTERS, KINDS)
@hypothesis_settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_request_and_a_head_fit(settings: Settings, letter: str, kind: str) -> None:
    user = user_of(events(letter, kind), settings, letter)
    request = request_of(user, settings)
    assert len(request.to_json()) < MAX_VALUE_BYTES
    assert isinstance(decode(request.to_json(), ProfileRequest), ProfileRequest)
    windows = request.windows
    assert windows.short or windows.avoids
    keys = [entry.key for entry in user.history]
    assert max(len(value or b"") for _, value in store(user, keys)) < MAX_VALUE_BYTES


def test_the_oldest_entries_are_left_out_and_parity_holds(settings: Settings, tmp_path) -> None:
    made = events("\U0001f600", "view")
    user = user_of(made, settings, "a")
    request = request_of(user, settings)
    kept = len(request.windows.short)
    assert 0 < kept < 500
    newest = [entry.event_id for entry in user.history[-kept:]]
    assert [entry.event_id for entry in request.windows.short] == newest
    log = SegmentLog(tmp_path)
    record(
        log, settings, [record_of("interactions", 0, n, one, NOW + n) for n, one in enumerate(made)]
    )
    record(log, settings, [record_of("profile-requests", 0, 0, request)])
    report = check_parity(log, settings)
    assert (report.requests, report.mismatches) == (1, [])


def test_a_usual_request_keeps_everything(settings: Settings) -> None:
    made = [one.model_copy(update={"review": "good " * 40}) for one in events("a", "view")]
    short = [
        one.model_copy(update={"event_id": f"e{n}", "item_id": f"i{n}"})
        for n, one in enumerate(made)
    ]
    spec = load_settings(data_dir=settings.data_dir)
    assert len(request_of(user_of(short, spec, "a"), spec).windows.long) == 500


@given(LETTERS, st.sampled_from([1, 12, 5_000]))
@hypothesis_settings(max_examples=6, deadline=None)
def test_a_list_of_the_longest_reasons_fits(letter: str, evidence: int) -> None:
    ids = tuple(long_id(number, letter) for number in range(200))
    matrix = np.eye(1, 8).repeat(200, 0).astype(np.float32)
    catalogue = Catalogue(ids, matrix, np.ones(200, bool), ids, {i: n for n, i in enumerate(ids)})
    events_of = tuple(long_id(number, letter) for number in range(evidence))
    sentence = Sentence(text=letter * 900_000, evidence=events_of, items=ids[:12])
    nothing = np.zeros(200)
    parts = dict.fromkeys(PARTS, nothing) | {"profile": nothing + 0.123456}
    chosen = Chosen(np.arange(200), **parts)
    items = explain(catalogue, None, Known(matrix[0], (sentence,), ()), chosen)
    made = Recommendation(
        recommendation_id="r" * 64,
        user_id=ids[0],
        as_of=NOW,
        trigger="profile",
        applied_offset=1,
        profile_id="p" * 64,
        release="base-0",
        items=items,
        created_at=NOW,
    )
    assert len(made.to_json()) < MAX_VALUE_BYTES
    assert items[0].reason.text.startswith(letter)
    assert items[0].reason.evidence == events_of[: len(items[0].reason.evidence)] != ()


@pytest.mark.parametrize("seen", [3_786_912_000_000, NOW])
@pytest.mark.parametrize("forgotten_until", [-1, 0, 1_764_000_000])
def test_no_clock_leads_out_of_the_years_of_messages(
    settings: Settings, seen: int, forgotten_until: int
) -> None:
    """A user with nothing but an edit, in a partition whose clock is wrong; and old states."""
    clock = PartitionClock(seen, behind=seen)
    user = User("bob")
    apply_edit(
        user,
        ProfileEdit(edit_id="x", user_id="bob", action="pin", text="tea", timestamp=NOW),
        *(0, NOW),
    )
    user.head.forgotten_until = forgotten_until
    as_of = user.now(clock, NOW)
    request = build_request(user, 0, Due(1.0, "edit"), as_of, NOW, settings, str)
    assert isinstance(decode(request.to_json(), ProfileRequest), ProfileRequest)

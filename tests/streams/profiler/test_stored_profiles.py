from __future__ import annotations

from typing import Any

from models.schemas import Profile, Sections
from streams.profiler.profile_version import ProfileVersion, RecordPosition
from streams.profiler.stored_profiles import StoredProfiles
from tests.streams.profiler.requests import AS_OF, record

RETRY_S = 30.0


def profile(applied: int, version: int = 1, fallback: bool = False, **fields: Any) -> Profile:
    values = {
        "profile_id": f"p{applied}",
        "user_id": "ada",
        "version": version,
        "as_of": AS_OF,
        "sections": Sections(),
        "text": "",
        "release": "base-0",
        "model": "m",
        "fallback": fallback,
        "request_id": f"r{applied}",
        "request_partition": 2,
        "request_offset": 100 + applied,
        "rule": "first",
        "prompt_version": "v",
        "prompt_hash": "h",
        "windows_hash": "w",
        "applied_offset": applied,
        "vector": (),
        "vector_release": "base-0",
        "created_at": AS_OF,
    }
    return Profile.model_validate(values | fields)


def due(stored: StoredProfiles, after_s: float, most: int = 9) -> list[Any]:
    return stored.due_debts(AS_OF + after_s * 1000, {0, 1, 2, 3}, most)


def test_a_request_is_answered_by_a_stored_profile_that_is_as_new() -> None:
    stored = StoredProfiles(RETRY_S, 1)
    assert not stored.answers("ada", ProfileVersion(5, -1, 1))
    stored.note(profile(5))
    assert stored.answers("ada", ProfileVersion(5, -1, 1))
    assert stored.answers("ada", ProfileVersion(4, 7, 9))
    assert not stored.answers("ada", ProfileVersion(5, -1, 2))
    assert not stored.answers("bob", ProfileVersion(5, -1, 1))


def test_a_fallback_answers_older_requests_but_not_its_own() -> None:
    stored = StoredProfiles(RETRY_S, 1)
    stored.note(profile(5, fallback=True))
    assert stored.answers("ada", ProfileVersion(4, -1, 1))
    assert not stored.answers("ada", ProfileVersion(5, -1, 1))


def test_a_fallback_found_in_the_topic_is_a_debt_that_names_its_request() -> None:
    stored = StoredProfiles(RETRY_S, 1)
    stored.on_record(record(0, profile(5, fallback=True).to_json()))
    assert due(stored, RETRY_S - 1) == []
    (debt,) = due(stored, RETRY_S)
    assert (debt.user_id, debt.request_id, debt.position) == ("ada", "r5", RecordPosition(2, 105))
    assert stored.due_debts(AS_OF + 1e6, {0, 1}, 9) == []


def test_a_debt_ends_with_the_profile_of_the_model_or_a_newer_one() -> None:
    for repaid in (profile(5), profile(6), profile(5, version=2)):
        stored = StoredProfiles(RETRY_S, 1)
        stored.note(profile(5, fallback=True))
        (debt,) = due(stored, RETRY_S)
        stored.note(repaid)
        assert not stored.still_owed(debt)
        assert stored.debts == 0


def test_an_older_profile_changes_nothing() -> None:
    stored = StoredProfiles(RETRY_S, 1)
    stored.note(profile(5, fallback=True))
    stored.note(profile(4))
    assert stored.debts == 1
    stored.note(profile(6))
    stored.note(profile(5, fallback=True))
    assert stored.debts == 0


def test_the_pause_between_tries_of_one_debt_doubles() -> None:
    stored = StoredProfiles(RETRY_S, 1)
    stored.note(profile(5, fallback=True))
    (debt,) = due(stored, RETRY_S)
    pauses = []
    for _ in range(10):
        stored.postpone(debt, AS_OF)
        pauses.append((debt.due_ms - AS_OF) / 1000 / RETRY_S)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 128, 128]


def test_a_tombstone_forgets_the_user_with_the_debt() -> None:
    stored = StoredProfiles(RETRY_S, 1)
    stored.note(profile(5, fallback=True))
    stored.on_record(record(1, None))
    assert stored.debts == 0
    assert not stored.answers("ada", ProfileVersion(1, -1, 1))


def test_what_is_no_profile_is_left_out() -> None:
    stored = StoredProfiles(RETRY_S, 1)
    for value in (b"\xff\x00", b"[]", b'{"user_id": "ada"}'):
        stored.on_record(record(0, value))
    assert not stored.answers("ada", ProfileVersion(0, -1, 1))


def test_debts_that_cannot_be_paid_are_written_off() -> None:
    stored = StoredProfiles(RETRY_S, 1)
    stored.note(profile(5, fallback=True))
    (debt,) = due(stored, RETRY_S)
    stored.write_off(debt)
    assert stored.debts == 0
    assert due(stored, 1e6) == []


def test_only_as_many_debts_are_handed_out_as_there_is_room_for() -> None:
    stored = StoredProfiles(RETRY_S, 1)
    for n in range(5):
        stored.note(profile(n, fallback=True, user_id=f"u{n}", created_at=AS_OF - n))
    assert [debt.user_id for debt in due(stored, RETRY_S, most=2)] == ["u4", "u3"]
    assert due(stored, RETRY_S, most=-1) == []

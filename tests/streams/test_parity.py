"""What `check_parity` finds, what it waits for, and what it lets pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.identity import text_hash
from models.profile.prompts import PROMPT_VERSION, render
from models.schemas import Interaction, Profile, ProfileRequest, Sections, Windows
from models.settings import Settings
from streams.event_log import SegmentLog
from streams.parity import ParityReport, check_parity
from streams.windows import EMPTY, advance, entry_of, to_windows, views, windows_hash
from tests.streams.logged import NOW, record, record_of


@pytest.fixture
def settings(make_settings) -> Settings:
    return make_settings(kafka={"partitions": 1})


EVENTS = [
    Interaction(
        event_id=f"e{n}", user_id="ann", item_id=f"i{n}", type="purchase", timestamp=NOW + n
    )
    for n in range(6)
]


def request(settings: Settings, upto: int = 3, since: int = 0, **fields) -> ProfileRequest:
    history = EMPTY
    for offset in range(since, upto + 1):
        history = advance(history, entry_of(EVENTS[offset], offset), 500)
    windows = to_windows(views(history, NOW + 100, settings.windows), lambda item: f"title {item}")
    values = {
        **{"request_id": f"r{upto}-{since}", "user_id": "ann", "number": 1, "as_of": NOW + 100},
        **{"applied_offset": upto, "history_from": since, "partition": 0, "windows": windows},
        **{"windows_hash": windows_hash(windows), "rule": "first", "staleness": 1.0},
        "requested_at": NOW,
    }
    return ProfileRequest.model_validate(values | fields)


def profile(asked: ProfileRequest, **fields) -> Profile:
    values = {
        **{"profile_id": "p", "user_id": "ann", "version": 1, "as_of": NOW, "text": "…"},
        **{"sections": Sections(), "release": "base-0", "model": "m", "rule": "first"},
        **{"request_id": asked.request_id, "prompt_version": PROMPT_VERSION},
        **{"prompt_hash": text_hash(render(asked)), "windows_hash": asked.windows_hash},
        **{"applied_offset": asked.applied_offset, "vector": (1.0,), "vector_release": "base-0"},
        "created_at": NOW,
    }
    return Profile.model_validate(values | fields)


@pytest.fixture
def log(tmp_path: Path) -> SegmentLog:
    return SegmentLog(tmp_path / "log")


def check(
    log: SegmentLog, settings: Settings, requests=(), profiles=(), events=EVENTS, profiled=NOW
) -> ParityReport:
    for topic, found, at in (
        ("interactions", events, NOW),
        ("profile-requests", requests, NOW),
        ("profiles", profiles, profiled),
    ):
        rows = [record_of(topic, 0, offset, message, at) for offset, message in enumerate(found)]
        record(log, settings, rows)
    return check_parity(log, settings)


def kinds(report: ParityReport) -> list[str]:
    assert report.mismatch_count == len(report.mismatches)
    return [mismatch.kind for mismatch in report.mismatches]


def test_an_empty_log_has_nothing_to_check(log, settings):
    assert check_parity(log, settings) == ParityReport()


def test_requests_of_one_user_are_checked_at_their_own_offsets(log, settings):
    asked = [request(settings, 5), request(settings, 1), request(settings, 3)]
    report = check(log, settings, asked, [profile(one) for one in asked])
    assert (report.requests, report.profiles, kinds(report)) == (3, 3, [])


def test_a_window_that_lacks_an_event_is_named(log, settings):
    whole = request(settings)
    short = whole.windows.model_copy(update={"long": whole.windows.long[1:]})
    wrong = request(settings, windows=short, windows_hash=windows_hash(short))
    report = check(log, settings, [wrong])
    assert kinds(report) == ["windows"]
    assert "window long, entry 0" in report.mismatches[0].detail
    assert (report.mismatches[0].offset, report.mismatches[0].user_id) == (0, "ann")


def test_a_window_that_knows_a_later_event_is_found(log, settings):
    assert kinds(check(log, settings, [request(settings, 4, applied_offset=3)])) == ["windows"]


def test_a_hash_that_is_not_of_the_windows_is_found(log, settings):
    assert kinds(check(log, settings, [request(settings, windows_hash="0")])) == ["hash"]


def test_a_prompt_that_was_another_is_found(log, settings):
    asked = request(settings)
    report = check(log, settings, [asked], [profile(asked, prompt_hash="0")])
    assert kinds(report) == ["prompt"]


def test_texts_belong_to_the_request_and_are_in_its_prompt(log, settings):
    asked = request(settings)
    renamed = Windows.model_validate_json(asked.windows.model_dump_json().replace("title", "x"))
    retold = request(settings, windows=renamed, windows_hash=windows_hash(renamed))
    report = check(log, settings, [retold], [profile(asked, windows_hash=retold.windows_hash)])
    assert kinds(report) == ["prompt"]


def test_a_profile_of_another_prompt_version_is_counted_apart(log, settings):
    asked = request(settings)
    report = check(log, settings, [asked], [profile(asked, prompt_version="0", prompt_hash="0")])
    assert (report.other_prompts, kinds(report)) == (1, [])


def test_a_profile_without_its_request_is_found(log, settings):
    asked = request(settings)
    report = check(log, settings, [request(settings, 1)], [profile(asked)], profiled=NOW - 1)
    assert kinds(report) == ["prompt"]
    assert "not in the log" in report.mismatches[0].detail


def test_what_the_recorder_is_still_writing_is_waited_for(log, settings):
    asked = request(settings, 5)
    report = check(log, settings, [asked], [profile(request(settings, 1))], events=EVENTS[:4])
    assert (report.waiting, kinds(report)) == (2, [])


def test_forgotten_events_are_not_asked_for_again(log, settings):
    asked = [request(settings, 2), request(settings, 5, since=3)]
    assert kinds(check(log, settings, asked)) == []


def test_forgotten_events_take_no_room_in_a_full_history(log, make_settings):
    settings = make_settings(kafka={"partitions": 1}, windows={"history_cap": 2})
    late = EVENTS[3].model_copy(update={"timestamp": NOW - 1})
    window = to_windows(views((entry_of(late, 3),), NOW + 100, settings.windows), lambda _: "")
    asked = request(settings, 3, since=3, windows=window, windows_hash=windows_hash(window))
    assert kinds(check(log, settings, [asked], events=[*EVENTS[:3], late])) == []


def test_a_request_without_events_is_checked_too(log, settings):
    empty = Windows()
    nothing = {"windows": empty, "windows_hash": windows_hash(empty)}
    edited = request(settings, applied_offset=-1, rule="edit", **nothing)
    assert kinds(check(log, settings, [edited])) == []


def test_one_wrong_request_among_many_is_found(log, settings):
    wrong = request(settings, 2, as_of=NOW + 1)
    report = check(log, settings, [request(settings, 1), wrong, request(settings, 5)])
    assert kinds(report) == ["windows"]
    assert report.mismatches[0].offset == 1

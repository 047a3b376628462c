"""Sessions know nothing of what came later, lie in one split, and count what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.errors import EventLogError, TrainingError
from models.profile.prompts import render
from models.schemas import Interaction, Item, ProfileEdit
from models.settings import Settings, load_settings
from streams.event_log import SegmentLog
from streams.windows import split_by_liking
from tests.streams.logged import record, record_of
from tests.trainer.corpora import (
    DAY,
    START,
    MemorySource,
    bought,
    corpus_of,
    items,
    settings_with,
)
from trainer.data.corpus import Corpus, read_corpus, sample_users
from trainer.data.sessions import request_of

NAMES = [f"i{n}" for n in range(30)]
ALL = items(*NAMES)
LATER = st.integers(0, 60)


def weekly(user: str, count: int, since: int = 0) -> list[Interaction]:
    """One purchase a week."""
    return [bought(user, NAMES[n % 30], 7 * (n + since)) for n in range(count)]


@st.composite
def purchases(draw: st.DrawFn) -> list[Interaction]:
    events = [
        bought(
            draw(st.sampled_from(["ann", "bob", "cat"])),
            draw(st.sampled_from(NAMES[:8])),
            draw(LATER),
            name=f"e{number}",
            type=draw(st.sampled_from(["purchase", "purchase", "view", "cancel"])),
        )
        for number in range(draw(st.integers(4, 40)))
    ]
    return sorted(events, key=lambda event: event.timestamp) if draw(st.booleans()) else events


@hypothesis_settings(max_examples=40)
@given(purchases())
def test_a_session_knows_only_what_was_before_it_and_aims_only_at_its_own_split(
    events: list[Interaction],
) -> None:
    corpus = corpus_of(events, ALL, settings_with(min_history=1, gap_hours=1.0))

    for span in corpus.data_range.borders.spans():
        for session in corpus.sessions.of(span.split):
            assert all(entry.timestamp <= session.as_of for entry in session.history)
            assert all(entry.offset <= session.applied_offset for entry in session.history)
            assert session.as_of < session.target_time <= session.last_target_time
            assert span.since <= session.target_time
            assert session.last_target_time < span.until
            assert len(set(session.targets)) == len(session.targets) > 0


@hypothesis_settings(max_examples=40)
@given(purchases(), st.integers(5, 40))
def test_what_comes_after_a_split_changes_nothing_in_it(
    events: list[Interaction], day: int
) -> None:
    """The training part is the same whether the later events exist or not."""
    whole = read_corpus(MemorySource(events, ALL), settings_with(min_history=1), "temporal")
    end = whole.data_range.borders.train_end
    rest = [
        event if event.timestamp < end else event.model_copy(update={"item_id": "i20"})
        for event in events
    ]
    other = corpus_of(rest, ALL, settings_with(min_history=1))

    assert other.data_range.borders == whole.data_range.borders
    assert other.sessions.train == whole.sessions.train
    assert other.training_events.items.tolist() == whole.training_events.items.tolist()


@hypothesis_settings(max_examples=40)
@given(purchases(), st.data())
def test_what_is_sent_again_changes_nothing(events: list[Interaction], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(events), max_size=10))
    settings = settings_with(min_history=1)

    once, more = corpus_of(events, ALL, settings), corpus_of([*events, *again], ALL, settings)

    assert more.sessions == once.sessions
    assert more.data_range.borders == once.data_range.borders
    assert more.known_events.items.tolist() == once.known_events.items.tolist()


def test_a_moment_opens_one_session_and_its_basket_is_the_target() -> None:
    events = [
        *weekly("ann", 4),
        bought("ann", "i10", 100),
        bought("ann", "i11", 100.01),  # a quarter of an hour later: the same moment
        bought("bob", "i1", 200),
    ]
    corpus = corpus_of(events, ALL, settings_with(validation=0.01, test=0.01))

    newest = corpus.sessions.train[0]
    assert newest.targets == ("i10", "i11")
    assert newest.as_of == START + 100 * DAY - 1
    assert newest.liked(corpus.spec) == ("i0", "i1", "i2", "i3")
    assert [session.targets[0] for session in corpus.sessions.train] == ["i10", "i3"]


def test_targets_are_cut_at_the_border_and_at_the_horizon() -> None:
    events = weekly("ann", 20)  # the last two are the test, the two before the validation
    corpus = corpus_of(events, ALL, settings_with(horizon=3, per_user=100))

    assert corpus.sessions.test[-1].targets == ("i18", "i19")
    assert corpus.sessions.train[0].targets == ("i15",)
    assert corpus.sessions.train[3].targets == ("i12", "i13", "i14")
    assert corpus.counts["sessions_train"] == 13  # openings 3..15


def test_the_newest_sessions_of_a_user_are_kept() -> None:
    corpus = corpus_of(weekly("ann", 20), ALL, settings_with(per_user=2))

    assert [session.targets[0] for session in corpus.sessions.train] == ["i15", "i14"]


def test_a_purchase_cancelled_before_the_border_is_no_target_one_cancelled_after_it_is() -> None:
    early = bought("ann", "i10", 28.1, type="cancel")
    late = bought("ann", "i10", 900, type="cancel")
    base = [*weekly("ann", 4), bought("ann", "i10", 28), bought("ann", "i11", 40)]
    filler = [bought("bob", "i1", 41 + n) for n in range(4)]
    settings = settings_with(validation=0.1, test=0.1, gap_hours=100)

    cancelled = corpus_of([*base[:5], early, base[5], *filler], ALL, settings)
    kept = corpus_of([*base, *filler, late], ALL, settings)

    assert all("i10" not in session.targets for session in cancelled.sessions.train)
    assert any("i10" in session.targets for session in kept.sessions.train)


def test_items_outside_the_catalogue_are_no_targets_and_counted() -> None:
    events = [*weekly("ann", 5), bought("ann", "ghost", 36), bought("ann", "i9", 36.5)]
    corpus = corpus_of(events, ALL, settings_with(test=0.4, validation=0.01))

    assert "ghost" not in {target for s in corpus.sessions.test for target in s.targets}
    assert corpus.counts["events_of_unknown_items"] == 1


def test_the_prompt_of_a_session_is_the_trackers() -> None:
    corpus = corpus_of(weekly("ann", 12), ALL)
    session = corpus.sessions.test[0]

    request = request_of(session, corpus.spec, corpus.text_of)

    assert request.windows.long[-1].item_id == session.liked(corpus.spec)[-1]
    assert request.windows.long[-1].text == "i10 thing"
    assert "i10 thing" in render(request)


def test_leave_one_out_holds_back_the_last_two_positives_of_every_user() -> None:
    settings = settings_with(horizon=2, per_user=1, min_history=2)
    corpus = corpus_of(weekly("ann", 6), ALL, settings, protocol="leave-one-out")

    (test,), (validation,), (trained,) = (
        corpus.sessions.test,
        corpus.sessions.validation,
        corpus.sessions.train,
    )
    assert (test.targets, test.liked(corpus.spec)) == (("i5",), ("i0", "i1", "i2", "i3", "i4"))
    assert (validation.targets, validation.liked(corpus.spec)[-1]) == (("i4",), "i3")
    assert (trained.targets, trained.liked(corpus.spec)) == (("i3",), ("i0", "i1", "i2"))
    assert corpus.training_events.items.tolist() == [corpus.row_of[f"i{n}"] for n in range(4)]
    assert corpus.known_events.items.tolist() == [corpus.row_of[f"i{n}"] for n in range(5)]


def test_one_user_with_little_gives_no_session() -> None:
    corpus = corpus_of(weekly("ann", 2), ALL)

    assert (corpus.sessions.train, corpus.sessions.test) == ((), ())


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(TrainingError, match="no interactions"):
        corpus_of([], ALL)
    with pytest.raises(TrainingError, match="no items"):
        corpus_of(weekly("ann", 5), [])


def test_a_sample_keeps_all_sessions_of_its_users_and_is_seeded() -> None:
    sessions = [
        session for user in "abcdef" for session in corpus_of(weekly(user, 12), ALL).sessions.train
    ]

    drawn = sample_users(sessions, 2, seed=1)

    assert len(drawn) == 2 * 4
    assert drawn == sample_users(sessions, 2, seed=1)
    assert sample_users(sessions, 99, seed=1) == tuple(sessions)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path, kafka={"partitions": 1})


def write_log(settings: Settings, events: list[Interaction], catalogue: list[Item]) -> SegmentLog:
    log = SegmentLog(settings.log_dir)
    for start in range(0, len(events), 5):
        record(
            log,
            settings,
            [
                record_of("interactions", 0, start + n, event, event.timestamp)
                for n, event in enumerate(events[start : start + 5])
            ],
        )
    record(log, settings, [record_of("items", 0, n, item) for n, item in enumerate(catalogue)])
    return log


def test_the_log_and_a_source_in_memory_give_the_same_corpus(settings: Settings) -> None:
    events = [*weekly("ann", 12), *weekly("bob", 9, since=2)]
    logged = Corpus.from_log(write_log(settings, events, ALL), settings)
    direct = corpus_of(events, ALL, settings)

    assert logged.sessions == direct.sessions
    assert logged.items == direct.items
    assert logged.data_range.next_offsets == {0: 21}


def test_what_a_user_asked_to_be_forgotten_is_not_read(settings: Settings) -> None:
    log = write_log(settings, [*weekly("ann", 12), *weekly("bob", 12)], ALL)
    wish = ProfileEdit(edit_id="1", user_id="ann", action="forget", timestamp=START)
    record(log, settings, [record_of("profile-edits", 0, 0, wish, START + 30 * DAY)])

    corpus = Corpus.from_log(log, settings)

    assert corpus.counts["events"] == 12 + 7  # of ann only what came after day 30
    assert all(
        len(split_by_liking(session.history, corpus.spec)[0]) < 7
        for session in corpus.sessions.test
        if session.user_id == "ann"
    )


def test_an_empty_log_and_a_lost_segment_are_said(settings: Settings) -> None:
    with pytest.raises(TrainingError, match="no interactions"):
        Corpus.from_log(SegmentLog(settings.log_dir), settings)
    log = write_log(settings, weekly("ann", 12), ALL)
    next((settings.log_dir / "interactions" / "0").glob("*.parquet")).unlink()

    with pytest.raises(EventLogError, match="lost"):
        Corpus.from_log(log, settings)


def test_a_truncated_segment_is_said_with_its_file(settings: Settings) -> None:
    log = write_log(settings, weekly("ann", 12), ALL)
    segment = sorted((settings.log_dir / "interactions" / "0").glob("*.parquet"))[1]
    segment.write_bytes(segment.read_bytes()[:200])

    with pytest.raises(EventLogError, match=segment.name):
        Corpus.from_log(log, settings)


def test_a_folder_without_its_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"items\.parquet is not there"):
        Corpus.from_folder(tmp_path, load_settings())


def test_the_sample_reads_as_its_attribution_says() -> None:
    corpus = Corpus.from_folder(Path(__file__).parents[3] / "data" / "sample", load_settings())

    assert corpus.counts["users"] == 300
    assert corpus.counts["items"] == len(corpus.item_ids) == 4619
    assert corpus.counts["events"] == 62_165
    assert list(corpus.item_ids) == sorted(corpus.item_ids)
    assert corpus.training_events.users.tolist() == sorted(corpus.training_events.users.tolist())

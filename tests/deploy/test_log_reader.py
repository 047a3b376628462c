"""What the log says about a user, and that outside text stays text in a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from deploy.log_reader import LogReader, all_sentences
from deploy.rendering import history_view, profile_view, recommendation_view, versions_view
from models.errors import EventLogError
from models.schemas import (
    Interaction,
    InteractionType,
    Item,
    Message,
    Profile,
    Reason,
    ReasonKind,
    Recommendation,
    RecommendedItem,
    Sections,
    Sentence,
)
from models.settings import Settings, load_settings
from streams.codec import key_of, partition_for
from streams.event_log import SegmentLog
from tests.streams.logged import record, record_of

NOW = 1_300_000_000_000
MINUTE = 60_000
TRICK = "[bold]cake[/nonsense] \\[x]"


def interaction(event: str, item: str, minutes: int, user: str = "ann") -> Interaction:
    return Interaction(
        event_id=event,
        user_id=user,
        item_id=item,
        type=InteractionType.PURCHASE,
        timestamp=NOW + minutes * MINUTE,
    )


def profile(profile_id: str, applied: int, version: int, text: str = "Buys cake") -> Profile:
    sentence = Sentence(text=text, evidence=("e1", "unknown"), items=("cake",))
    return Profile(
        profile_id=profile_id,
        user_id="ann",
        version=version,
        as_of=NOW,
        sections=Sections(stable=(sentence,)),
        text=text,
        release="base-0",
        model="a-model",
        request_id="r",
        rule="first",
        prompt_version="1",
        prompt_hash="h",
        windows_hash="w",
        applied_offset=applied,
        vector=(1.0, 0.0),
        vector_release="base-0",
        created_at=NOW,
    )


def recommendation(name: str, applied: int, created: int = NOW) -> Recommendation:
    reason = Reason(kind=ReasonKind.RECENT, text=f"Similar to {TRICK}")
    line = RecommendedItem(item_id="cake", rank=1, score=0.5, parts={}, reason=reason)
    return Recommendation(
        recommendation_id=name,
        user_id="ann",
        as_of=NOW,
        trigger="event",
        applied_offset=applied,
        release="base-0",
        items=(line,),
        created_at=created,
    )


class Log:
    """A log that is filled by hand, as the recorder would."""

    def __init__(self, folder: Path) -> None:
        self.settings: Settings = load_settings(data_dir=folder)
        self.log = SegmentLog(self.settings.log_dir)

    def holds(self, topic: str, *messages: Message) -> None:
        home = partition_for(key_of(messages[0]), self.settings.kafka.partitions)
        records = [
            record_of(topic, home, n, message, NOW + 10**9) for n, message in enumerate(messages)
        ]
        record(self.log, self.settings, records)

    def reader(self) -> LogReader:
        return LogReader(self.settings)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def shown(*parts: object) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    for part in parts:
        console.print(part)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


def test_without_a_log_the_reader_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(EventLogError, match="palate up"):
        LogReader(load_settings(data_dir=tmp_path))


def test_a_history_is_in_the_order_of_event_time_each_event_once(log: Log) -> None:
    late, early = interaction("b", "tea", 5), interaction("a", "cake", 1)
    log.holds("interactions", late, early, late)
    assert [entry.event_id for entry in log.reader().history("ann")] == ["a", "b"]
    assert log.reader().history("bob") == ()


def test_profiles_come_in_their_order_and_the_first_of_an_id_counts(log: Log) -> None:
    log.holds(
        "profiles", profile("p2", 9, 2), profile("p1", 4, 1), profile("p2", 9, 2, "Sent again")
    )
    found = log.reader().profiles("ann")
    assert [(p.profile_id, p.text) for p in found] == [("p1", "Buys cake"), ("p2", "Buys cake")]


def test_the_newest_list_knows_most_of_the_events_not_the_latest_clock(log: Log) -> None:
    log.holds("recommendations", recommendation("new", 9, NOW), recommendation("old", 4, NOW + 99))
    found = log.reader().recommendation("ann")
    assert found is not None
    assert found.recommendation_id == "new"
    assert log.reader().recommendation("bob") is None


def test_evidence_is_found_with_the_items_newest_text(log: Log) -> None:
    log.holds("interactions", interaction("e1", "cake", 1), interaction("e2", "tea", 2))
    log.holds(
        "items", Item(item_id="cake", title="Old cake"), Item(item_id="cake", title="New cake")
    )
    found = log.reader().evidence(profile("p1", 1, 1))
    assert [(e.event_id, e.text) for e in found.values()] == [("e1", "New cake")]


def test_titles_and_sentences_are_shown_as_they_are_not_as_markup(log: Log) -> None:
    log.holds("interactions", interaction("e1", "cake", 1))
    log.holds("items", Item(item_id="cake", title=TRICK))
    log.holds("recommendations", recommendation("r", 1))
    reader = log.reader()
    history = reader.history("ann")
    texts = {"cake": TRICK}
    _, windows = reader.windows("ann", history)
    version = profile("p1", 1, 1, TRICK)
    found = reader.recommendation("ann")
    assert found is not None
    for view in (
        history_view(history, windows, texts, 5),
        profile_view(version, reader.evidence(version)),
        recommendation_view(found, texts),
    ):
        assert TRICK in shown(view)
    assert "a-model" in shown(versions_view([version]))


def test_all_sentences_follow_the_order_of_the_sections() -> None:
    sections = Sections(now=(Sentence(text="n"),), stable=(Sentence(text="s"),))
    both = profile("p", 1, 1).model_copy(update={"sections": sections})
    assert [sentence.text for sentence in all_sentences(both)] == ["s", "n"]

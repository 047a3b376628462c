"""Profiles, histories and lists as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deploy.log_reader import LoggedEvent, by_section
from models.schemas import Origin, Profile, Recommendation, Sentence
from streams.windows import History, HistoryViews

SECTION_TITLES = {
    "stable": "Stable taste",
    "current": "Current interests",
    "now": "Right now",
    "avoids": "Avoids",
}
ORIGIN_NAMES = {
    Origin.MODEL: "written by the model",
    Origin.EXTRACTIVE: "taken from the events",
    Origin.USER: "written by the user",
}


def day(epoch_ms: int) -> str:
    """Epoch ms → 2011-03-02 14:05, in UTC."""
    return datetime.fromtimestamp(epoch_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M")


def profile_view(
    profile: Profile, events: Mapping[str, LoggedEvent], most_evidence: int = 3
) -> RenderableType:
    """Sections, their sentences, and what each rests on (at most so many events each)."""
    head = (
        f"[bold]{escape(profile.user_id)}[/]  version {profile.version}, as of "
        f"{day(profile.as_of)}, release {profile.release}, model {escape(profile.model)}"
        + ("  [yellow](stand-in: the model could not be reached)[/]" if profile.fallback else "")
    )
    parts: list[RenderableType] = [Text.from_markup(head)]
    for name, sentences in by_section(profile):
        if sentences:
            parts.append(Text(SECTION_TITLES[name], style="bold cyan"))
        for sentence in sentences:
            parts.append(_sentence(sentence, events, most_evidence))
    return Group(*parts)


def _sentence(sentence: Sentence, events: Mapping[str, LoggedEvent], most: int) -> RenderableType:
    lines = [Text.assemble(sentence.text, (f"  {ORIGIN_NAMES[sentence.origin]}", "dim"))]
    known = [events[event] for event in sentence.evidence if event in events]
    for event in known[:most]:
        lines.append(Text(f"  ↳ {day(event.timestamp)} {event.type} {event.text}", style="dim"))
    if len(known) > most:
        lines.append(Text(f"  ↳ and {len(known) - most} more", style="dim"))
    return Padding(Group(*lines), (0, 0, 0, 2))


def versions_view(profiles: Sequence[Profile]) -> Table:
    """One line per version, the newest first."""
    table = Table("version", "as of", "rule", "model", "kept", "rejected", "extractive", "tokens")
    for profile in reversed(profiles):
        counts, tokens = profile.sentences, profile.tokens
        table.add_row(
            *(str(profile.version), day(profile.as_of), profile.rule, escape(profile.model)),
            *(str(counts.kept), str(counts.rejected), str(counts.extractive)),
            f"{tokens.prompt}+{tokens.completion}",
        )
    return table


def history_view(
    history: History, windows: HistoryViews, texts: Mapping[str, str], most: int
) -> Table:
    """The newest `most` interactions, newest first, with the windows that each is in."""
    table = Table("event time", "type", "item", "", "windows")
    members = {
        name: {entry.event_id for entry in window}
        for name, window in zip(SECTION_TITLES, windows, strict=True)
    }
    for entry in reversed(history[-most:]):
        held = [SECTION_TITLES[name] for name, ids in members.items() if entry.event_id in ids]
        rating = "" if entry.rating is None else f" {entry.rating:g}★"
        table.add_row(
            *(day(entry.timestamp), entry.type.value + rating, escape(entry.item_id)),
            escape(texts.get(entry.item_id, "(not in the catalogue)")),
            ", ".join(held).lower(),
        )
    return table


def recommendation_view(found: Recommendation, texts: Mapping[str, str]) -> RenderableType:
    """The list with the strongest reason of each item."""
    version = (
        "no profile yet" if found.profile_version is None else f"profile {found.profile_version}"
    )
    head = (
        f"[bold]{escape(found.user_id)}[/]  as of {day(found.as_of)}, because of: {found.trigger}, "
        f"{version}, release {found.release}"
    )
    table = Table("", "item", "", "score", "why")
    for item in found.items:
        table.add_row(
            *(str(item.rank), escape(item.item_id)),
            escape(texts.get(item.item_id, "")),
            *(f"{item.score:.3f}", escape(item.reason.text)),
        )
    return Group(Text.from_markup(head), table)

"""What the event log says about one user, for the commands that show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from models.errors import EventLogError
from models.schemas import Interaction, Item, Message, Profile, Recommendation, Sentence
from models.settings import Settings
from models.text import item_text
from streams.event_log import answered, connect_views
from streams.windows import EMPTY, History, HistoryViews, advance, entry_of, kept, views

M = TypeVar("M", bound=Message)


class LoggedEvent(NamedTuple):
    """One interaction as it is shown. `timestamp` in epoch ms of event time."""

    event_id: str
    timestamp: int
    type: str
    item_id: str
    text: str


class LogReader:
    """Queries over the log as it is when the reader is made."""

    def __init__(self, settings: Settings) -> None:
        if not settings.log_dir.is_dir():
            raise EventLogError(
                f"there is no event log in {settings.log_dir}: nothing was recorded there yet. "
                "Start Palate (palate up), or name the folder: PALATE_LOG__DIR or PALATE_DATA_DIR"
            )
        self.settings = settings
        self.connection = connect_views(settings.log_dir, settings.windows.weights)

    def profiles(self, user_id: str) -> list[Profile]:
        """All versions since the user asked to be forgotten, if so, the newest last.

        Of each profile id the first record.
        """
        found: dict[str, Profile] = {}
        for profile in self._messages("profiles", user_id, Profile):
            found.setdefault(profile.profile_id, profile)
        return sorted(
            (profile for profile in found.values() if profile.edits_offset >= self._wish(user_id)),
            key=lambda p: (p.applied_offset, p.edits_offset, p.version),
        )

    def _wish(self, user_id: str) -> int:
        """Offset of the user's last wish to be forgotten; -1 if there was none."""
        query = """
            SELECT max("offset") FROM edits
            WHERE status = 'ok' AND action = 'forget' AND user_id = ?
        """
        (offset,) = self.connection.execute(query, [user_id]).fetchone()
        return -1 if offset is None else int(offset)

    def recommendation(self, user_id: str) -> Recommendation | None:
        """The list that takes most of the user's interactions into account; of these the last.

        Lists made before the user asked to be forgotten do not count.
        """
        made = self._messages("recommendations", user_id, Recommendation)
        found = (one for one in made if one.edits_offset >= self._wish(user_id))
        return max(found, key=lambda r: (r.applied_offset, r.created_at), default=None)

    def history(self, user_id: str) -> History:
        """The user's history, by the same rules as the tracker's state."""
        history, spec = EMPTY, self.settings.windows
        rows = self._rows("remembered", user_id)
        for offset, value in rows:
            interaction = self._parsed(Interaction, value)
            if kept(interaction, spec):
                history = advance(history, entry_of(interaction, offset), spec.history_cap)
        return history

    def windows(self, user_id: str, history: History) -> tuple[int, HistoryViews]:
        """(as_of, windows) of the user's history as their newest list saw it.

        At the newest event if that is later: `now` is each user's own (architecture, property 2).
        """
        served = self.recommendation(user_id)
        as_of = max(served.as_of if served else 0, history[-1].timestamp if history else 0)
        return as_of, views(history, as_of, self.settings.windows)

    def texts(self, item_ids: Iterable[str]) -> dict[str, str]:
        """Item id → its short text, for the items that are known."""
        query = """
            SELECT value FROM items WHERE status = 'ok' AND list_contains(?, item_id)
            QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY "offset" DESC) = 1
        """
        rows = self._fetch(query, sorted(set(item_ids)))
        items = (self._parsed(Item, value) for (value,) in rows)
        return {item.item_id: item_text(item) for item in items}

    def events(self, user_id: str, event_ids: Sequence[str]) -> dict[str, LoggedEvent]:
        """Event id → the interaction, for those of `event_ids` that the log holds."""
        query = """
            SELECT event_id, timestamp, type, item_id FROM interactions
            WHERE status = 'ok' AND user_id = ? AND list_contains(?, event_id)
        """
        rows = self._fetch(query, user_id, list(event_ids))
        texts = self.texts(row[3] for row in rows)
        return {
            row[0]: LoggedEvent(row[0], row[1], row[2], row[3], texts.get(row[3], row[3]))
            for row in rows
        }

    def evidence(self, profile: Profile) -> dict[str, LoggedEvent]:
        """The interactions that the profile's sentences rest on."""
        cited = [event for sentence in all_sentences(profile) for event in sentence.evidence]
        return self.events(profile.user_id, cited)

    def _rows(self, view: str, user_id: str) -> list[tuple[int, bytes]]:
        query = f'SELECT "offset", value FROM {view} WHERE status = ? AND user_id = ? ORDER BY 1'
        return self._fetch(query, "ok", user_id)

    def _messages(self, view: str, user_id: str, schema: type[M]) -> list[M]:
        return [self._parsed(schema, value) for _, value in self._rows(view, user_id)]

    def _fetch(self, query: str, *parameters: Any) -> list[Any]:
        with answered(self.settings.log_dir):
            return list(self.connection.execute(query, list(parameters)).fetchall())

    def _parsed(self, schema: type[M], value: bytes) -> M:
        """A message that was accepted when it was logged."""
        try:
            return schema.model_validate_json(value)
        except ValueError as error:
            raise EventLogError(
                f"an accepted {schema.__name__} in {self.settings.log_dir} cannot be read any more "
                f"({' '.join(str(error).split())[:200]}): its segment is damaged, or another "
                "Palate recorded it. `palate check log` finds damaged segments"
            ) from error


def all_sentences(profile: Profile) -> list[Sentence]:
    """The sentences of all sections, in order."""
    return [sentence for _, sentences in by_section(profile) for sentence in sentences]


def by_section(profile: Profile) -> list[tuple[str, tuple[Sentence, ...]]]:
    """(section, its sentences) in the order in which they are read."""
    return [(name, getattr(profile.sections, name)) for name in type(profile.sections).model_fields]


def plain(message: Message | None) -> Any:
    """A message as JSON values, without vectors."""
    return message and message.model_dump(mode="json", exclude={"vector"}, exclude_none=True)

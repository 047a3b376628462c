"""Point-in-time sessions: what was known of a user at a moment, and what the user did next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.identity import request_id
from models.schemas import AppliedEdits, ProfileRequest
from models.settings import WindowSettings
from streams.windows import History, split_by_liking, to_windows, views, windows_hash

SessionKey = tuple[str, int, str]  # user id, as_of, id of the last event known


@dataclass(frozen=True, slots=True)
class Session:
    """One user at one moment. Everything in `history` was applied before any of `targets` came."""

    user_id: str
    partition: int
    as_of: int  # event time, epoch ms: the prompt's moment
    applied_offset: int  # of the last interaction in `history`
    history: History
    targets: tuple[str, ...]  # next positive items, distinct, in order, at least one
    target_time: int  # event time of the first target
    last_target_time: int  # event time of the last target; all of it lies in the session's split
    last_target_offset: int  # of the target that was logged last

    @property
    def key(self) -> SessionKey:
        """What names a session within a corpus; it sorts a user's by time.

        Sessions of one time, as leave-one-out has them, differ in the last event of their history.
        """
        return self.user_id, self.as_of, self.history[-1].event_id if self.history else ""

    def liked(self, spec: WindowSettings) -> tuple[str, ...]:
        """Items of the positive interactions, oldest first, with repetitions."""
        return tuple(entry.item_id for entry in split_by_liking(self.history, spec)[0])


def request_of(
    session: Session, spec: WindowSettings, text_of: Callable[[str], str]
) -> ProfileRequest:
    """The request that the tracker would have made at the session's moment.

    Its windows come from the tracker's own `views`, so a prompt rendered from it is what the
    live system would have asked (architecture, property 3).
    """
    windows = to_windows(views(session.history, session.as_of, spec), text_of)
    return ProfileRequest(
        request_id=request_id(session.user_id, session.applied_offset, -1, session.as_of),
        user_id=session.user_id,
        number=1,
        as_of=session.as_of,
        applied_offset=session.applied_offset,
        history_from=0,
        partition=session.partition,
        windows=windows,
        windows_hash=windows_hash(windows),
        edits=AppliedEdits(),
        rule="evidence",
        staleness=1.0,
        requested_at=session.as_of,
    )

"""What every user's state must be, by the plainest code that says it.

It judges streams/windows.py and streams/tracker/, so it imports neither them nor their decoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

CAP = 500  # interactions of a history
Held = tuple[int, str, str, str, int]  # (event time, event id, item id, type, offset)


@dataclass
class Expected:
    """One user's state."""

    held: list[Held] = field(default_factory=list)
    applied: int = -1  # offset of the last interaction that came in
    edited: int = -1  # offset of the last edit
    known: set[str] = field(default_factory=set)  # ids of edits
    pinned: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)
    forgotten_until: int = -1  # event time


class Oracle:
    """Takes records in the order of their offsets; knows the users `users`, nobody else."""

    def __init__(self, users: set[str]) -> None:
        self.states = {user: Expected() for user in users}

    def take_interaction(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        """The last CAP by (event time, event id), each id once; impressions are no part of it."""
        event = self._known(key, value, "event_id", "item_id", "type", "timestamp")
        if event is None or event["type"] == "impression":
            return
        state = self.states[event["user_id"]]
        if event["timestamp"] <= state.forgotten_until:
            return
        if event["event_id"] in {entry[1] for entry in state.held}:
            return
        ids = event["event_id"], event["item_id"], event["type"]
        entry = (event["timestamp"], *ids, offset)
        state.held = sorted([*state.held, entry], key=lambda one: one[:2])[-CAP:]
        if entry in state.held:
            state.applied = offset

    def take_edit(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        """The first of an id; `forget` must be sent when nothing else is on its way."""
        edit = self._known(key, value, "edit_id", "action")
        if edit is None:
            return
        state, text, section = (
            self.states[edit["user_id"]],
            edit.get("text"),
            edit.get("section"),
        )
        if str(edit["edit_id"]) in state.known:
            return
        state.known.add(str(edit["edit_id"]))
        state.edited = offset
        if edit["action"] == "pin":
            state.pinned = [one for one in state.pinned if one != text] + [text]
        elif edit["action"] == "unpin":
            state.pinned = [one for one in state.pinned if one != text]
        elif edit["action"] == "forbid":
            state.forbidden = [one for one in state.forbidden if one != text] + [text]
        elif edit["action"] == "allow":
            state.forbidden = [one for one in state.forbidden if one != text]
        elif edit["action"] == "replace":
            state.replaced[section] = text
        elif edit["action"] == "forget":  # what happened up to now stays out, however late it comes
            newest = max((entry[0] for entry in state.held), default=-1)
            state.forgotten_until = max(state.forgotten_until, newest, edit["timestamp"])
            state.held, state.pinned, state.forbidden, state.replaced = [], [], [], {}

    def _known(self, key: bytes | None, value: bytes | None, *fields: str) -> Any:
        """The message, if it is whole and of one of our users under its own key."""
        try:
            found = json.loads(value or b"")
            return (
                found if found["user_id"].encode() == key and self._whole(found, fields) else None
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _whole(self, found: Any, fields: tuple[str, ...]) -> bool:
        return found["user_id"] in self.states and all(name in found for name in fields)

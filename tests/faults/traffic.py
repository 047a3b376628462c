"""Events as shops send them: mostly in order, some late, some twice, some no events at all."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

START = 1_300_000_000_000  # event time of the first event, epoch ms
STEP, MINUTE, DAY = 20_000, 60_000, 86_400_000
LATE = (0, 0, 0, 0, 0, 0, 0, 10 * MINUTE, DAY, 40 * DAY)
TYPES = ("purchase", "purchase", "cart", "click", "view", "view", "cancel", "impression", "rating")
WORDS = ("brass", "velvet", "linen", "cedar", "amber")


class Outgoing(NamedTuple):
    """One record to be sent; `topic` without the prefix."""

    topic: str
    key: bytes
    value: bytes


class Traffic:
    """Endless, and the same for the same seed. A few users send much, most send little."""

    def __init__(self, seed: int, users: int = 90, items: int = 40) -> None:
        self._chance = random.Random(seed)
        self.users = [f"u{number}" for number in range(users)]
        self.items = [f"i{number}" for number in range(items)]
        self._weights = [1 / (3 + rank) for rank in range(users)]
        self._recent: deque[Outgoing] = deque(maxlen=300)
        self._count = self._edits = 0

    def __iter__(self) -> Iterator[Outgoing]:
        while True:
            yield self.next()

    def next(self) -> Outgoing:
        """One in ten sent again, one in a hundred no event, one in 150 an edit."""
        draw = self._chance.random()
        if draw < 0.1 and self._recent:
            return self._chance.choice(self._recent)
        if draw > 0.99:
            return Outgoing("interactions", self._user().encode(), b"not an interaction")
        if draw > 0.983:
            return self._edit(self._user())
        return self.event(self._user())

    def event(self, user: str) -> Outgoing:
        """A new interaction of this user."""
        self._count += 1
        kind = self._chance.choice(TYPES)
        event: dict[str, Any] = {
            "event_id": f"e{self._count}",
            "user_id": user,
            "item_id": self._chance.choice(self.items),
            "type": kind,
            "timestamp": START + self._count * STEP - self._chance.choice(LATE),
        }
        if kind == "rating":
            event["rating"] = self._chance.randrange(6)
        sent = Outgoing("interactions", user.encode(), json.dumps(event).encode())
        self._recent.append(sent)
        return sent

    def round(self) -> list[Outgoing]:
        """A purchase of every user, newer than all before: it shows the state as it is now."""
        return [self._purchase(user) for user in self.users]

    def _purchase(self, user: str) -> Outgoing:
        self._count += 1
        event = {
            "event_id": f"e{self._count}",
            "user_id": user,
            "item_id": self._chance.choice(self.items),
            "type": "purchase",
            "timestamp": START + self._count * STEP,
        }
        return Outgoing("interactions", user.encode(), json.dumps(event).encode())

    def forget(self, user: str) -> Outgoing:
        """The user's wish; what is already known of the user is not sent again."""
        kept = [one for one in self._recent if one.key != user.encode()]
        self._recent = deque(kept, maxlen=self._recent.maxlen)
        return self._edit(user, "forget")

    def catalogue(self) -> list[Outgoing]:
        """Every item."""
        titles = {
            item: f"Lamp number {item[1:]} of {self._chance.choice(WORDS)}" for item in self.items
        }
        return [
            Outgoing("items", item.encode(), json.dumps({"item_id": item, "title": title}).encode())
            for item, title in titles.items()
        ]

    def _user(self) -> str:
        return self._chance.choices(self.users, self._weights)[0]

    def _edit(self, user: str, action: str = "") -> Outgoing:
        self._edits += 1
        edit = {
            "edit_id": f"d{self._edits}",
            "user_id": user,
            "action": action or self._chance.choice(("pin", "unpin", "forbid", "allow", "replace")),
            "timestamp": START + self._count * STEP,
        }
        if edit["action"] != "forget":
            edit["text"] = self._chance.choice(WORDS)
        if edit["action"] == "replace":
            edit["section"] = self._chance.choice(("stable", "current", "now"))
        return Outgoing("profile-edits", user.encode(), json.dumps(edit).encode())

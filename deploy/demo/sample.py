"""The purchases in data/sample, split in time: a past to know customers by, and a live part."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from models.errors import ImportFailed
from streams.importers.survey import Ready, survey

FOLDER = Path(__file__).resolve().parents[2] / "data" / "sample"
LIVE_SHARE = 0.15  # of the events; about the last three months


@dataclass(frozen=True, slots=True)
class DemoSample:
    """Messages ready to be sent; `past` and `live` in order of time."""

    items: list[Ready]
    past: list[Ready]
    live: list[Ready]

    @property
    def begins(self) -> int:
        """Event time (epoch ms) of the first event."""
        return self.past[0].event_time or 0

    @property
    def live_since(self) -> int:
        """Event time (epoch ms) of the first live event."""
        return self.live[0].event_time or 0

    @property
    def ends(self) -> int:
        """Event time (epoch ms) of the last event."""
        return self.live[-1].event_time or 0

    def customers(self) -> int:
        """How many customers there are."""
        return len({message.key for message in (*self.past, *self.live)})

    def evidence_of_rank(self, rank: int) -> float:
        """Number of past events of the customer who has the `rank`-most."""
        counts = sorted(Counter(message.key for message in self.past).values(), reverse=True)
        return float(counts[min(rank, len(counts)) - 1])


def load_sample(events: int | None = None) -> DemoSample:
    """Read data/sample; with `events`, only the last so many. Raises ImportFailed."""
    items = _messages("items")
    interactions = _messages("interactions")[-(events or 10**9) :]
    split = round(len(interactions) * (1 - LIVE_SHARE))
    return DemoSample(items, interactions[:split], interactions[split:])


def _messages(kind: str) -> list[Ready]:
    path = FOLDER / f"{kind}.parquet"
    if not path.exists():
        raise ImportFailed(f"{path} is missing; the demo runs from a checkout of the repository")
    opened = survey(path, kind, "online-retail")  # type: ignore[arg-type]
    return list(opened.messages)

"""What became of a file's rows: counts by outcome and the first lines of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from models.ranking.data_now import Reached
from models.schemas import to_rfc3339

FIRST_LINES: Final = 3
MUCH_EARLIER_MS: Final = 86_400_000  # a day: shops write a day's rows in any order


def printable(text: str) -> str:
    """`text` on one line, without what a terminal would obey or UTF-8 cannot say."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


@dataclass(slots=True)
class OutcomeGroup:
    """Rows with the same outcome."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)  # (line, what it held)

    def add(self, line: int, detail: str) -> None:
        """Count one row; keep it if it is among the first."""
        self.count += 1
        if len(self.first) < FIRST_LINES:
            self.first.append((line, printable(detail[:200])))


@dataclass(slots=True)
class ImportReport:
    """The validation report of one file, complete when its rows have all been read."""

    path: Path
    rows: int = 0  # that the file held so far: those accepted and those rejected
    accepted: OutcomeGroup = field(default_factory=OutcomeGroup)
    rejected: dict[str, OutcomeGroup] = field(default_factory=dict)
    left_out: dict[str, OutcomeGroup] = field(
        default_factory=dict
    )  # by column: accepted without it
    doubts: dict[str, OutcomeGroup] = field(default_factory=dict)  # accepted, but look at these
    out_of_order: OutcomeGroup = field(
        default_factory=OutcomeGroup
    )  # accepted, but much earlier than before
    resumed_after: int = 0  # rows that an earlier run had brought to the broker
    sent: int = 0  # messages that the broker acknowledged in this run
    first_time: int | None = None  # ms
    last_time: int | None = None  # ms
    _reached: Reached = field(default_factory=Reached)

    @property
    def rejected_rows(self) -> int:
        """Rows that were left out."""
        return sum(group.count for group in self.rejected.values())

    def accept(self, line: int, what: str, user: bytes, event_time: int | None) -> None:
        """Count a usable row, in file order; an item has no event time."""
        self.accepted.add(line, what)
        if event_time is not None:
            self._see(line, user, event_time)

    def reject(self, line: int, reason: str, detail: str) -> None:
        """Count a row that is left out."""
        self.rejected.setdefault(reason, OutcomeGroup()).add(line, detail)

    def leave_out(self, line: int, column: str, detail: str) -> None:
        """Count a usable row of which one cell is left out."""
        self.left_out.setdefault(column, OutcomeGroup()).add(line, detail)

    def doubt(self, line: int, what: str, detail: str) -> None:
        """Count a usable row that may not mean what it says."""
        self.doubts.setdefault(what, OutcomeGroup()).add(line, detail)

    def _see(self, line: int, user: bytes, event_time: int) -> None:
        before = self._reached.time
        if before is not None and event_time < before - MUCH_EARLIER_MS:
            self.out_of_order.add(line, f"{to_rfc3339(event_time)} after {to_rfc3339(before)}")
        self._reached.see(user, event_time)
        self.first_time = min(event_time, self.first_time or event_time)
        self.last_time = max(event_time, self.last_time or event_time)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "file": printable(str(self.path)),
            "rows": self.rows,
            "accepted": _group(self.accepted),
            "rejected": _groups(self.rejected),
            "left_out": _groups(self.left_out),
            "doubts": _groups(self.doubts),
            "out_of_order": _group(self.out_of_order),
            "resumed_after": self.resumed_after,
            "sent": self.sent,
            "first_time": self.first_time and to_rfc3339(self.first_time),
            "last_time": self.last_time and to_rfc3339(self.last_time),
        }


def _groups(groups: dict[str, OutcomeGroup]) -> dict[str, Any]:
    return {name: _group(group) for name, group in groups.items()}


def _group(group: OutcomeGroup) -> dict[str, Any]:
    first = [{"line": line, "detail": detail} for line, detail in group.first]
    return {"count": group.count, "first": first}

"""Is what was asked and written what the events say? (architecture, property 3)

For every logged request the windows are recomputed from the interactions up to its offset; for
every logged profile the prompt is rendered again from its request. All must be equal, entry by
entry and byte for byte. Item texts are taken as the request resolved them: they belong to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final, NamedTuple

from models.identity import text_hash
from models.profile.prompts import PROMPT_VERSION, render
from models.schemas import ProfileRequest, Windows
from models.settings import Settings
from streams.event_log import SegmentLog
from streams.event_log.columns import OK
from streams.replay import NEVER, Replay, interactions, messages, partitions
from streams.windows import History, to_windows, views, windows_hash

KEPT_MISMATCHES: Final = 100  # described; all are counted


class Mismatch(NamedTuple):
    """One thing that is not as the events say."""

    kind: str  # windows, hash or prompt
    topic: str
    partition: int
    offset: int
    user_id: str
    detail: str


@dataclass(slots=True)
class ParityReport:
    """What was checked and what differed."""

    requests: int = 0
    profiles: int = 0
    waiting: int = 0  # logged before what they rest on: the recorder is still writing it
    other_prompts: int = 0  # profiles of another prompt version, which cannot be rendered here
    mismatch_count: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)  # the first KEPT_MISMATCHES

    def add(self, mismatch: Mismatch) -> None:
        """Count it; describe it unless there are many."""
        self.mismatch_count += 1
        if len(self.mismatches) < KEPT_MISMATCHES:
            self.mismatches.append(mismatch)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A request that waits for the replay to reach its offset."""

    offset: int
    applied_offset: int
    history_from: int
    forgotten_until: int | None
    as_of: int
    fingerprint: str  # of its windows without texts

    def remembers(self, offset: int, timestamp: int) -> bool:
        """Whether the user has not asked to be forgotten since that interaction."""
        until = self.forgotten_until
        return offset >= self.history_from and (until is None or timestamp > until)


class _Claim(NamedTuple):
    """What a profile says of its request."""

    offset: int
    user_id: str
    kafka_time: int
    prompt_version: str
    prompt_hash: str
    windows_hash: str


def check_parity(
    log: SegmentLog, settings: Settings, first_request: dict[int, int] | None = None
) -> ParityReport:
    """Check all requests and profiles of the log.

    `first_request`: per partition, check only requests from this offset on, and their profiles.
    """
    report = ParityReport()
    for partition in partitions(log, ("profile-requests", "profiles")):
        first = (first_request or {}).get(partition, 0)
        _PartitionCheck(log, settings, partition, report).run(first)
    return report


class _PartitionCheck:
    """One pass over profiles, requests and interactions of one partition."""

    def __init__(
        self, log: SegmentLog, settings: Settings, partition: int, report: ParityReport
    ) -> None:
        self.log, self.settings, self.partition = log, settings, partition
        self.report = report
        self.last_request_time = 0

    def run(self, first: int) -> None:
        claims = self._claims()
        pending = self._check_requests(first, claims)
        if first == 0:
            self._check_unanswered(claims)
        self._check_windows(pending)

    def _claims(self) -> dict[str, list[_Claim]]:
        """What all logged profiles say, by request id; their columns suffice."""
        claims: dict[str, list[_Claim]] = defaultdict(list)
        columns = ("status", "request_id", *_Claim._fields)
        for row in self.log.rows("profiles", self.partition, columns=columns):
            if row["status"] == OK:
                claim = _Claim(*(row[name] for name in _Claim._fields))
                claims[row["request_id"]].append(claim)
        return claims

    def _check_requests(
        self, first: int, claims: dict[str, list[_Claim]]
    ) -> dict[str, list[_Pending]]:
        """Compare each request with itself and its profiles; what waits for the replay."""
        pending: dict[str, list[_Pending]] = defaultdict(list)
        answered = set()
        for offset, request in self._requests(first):
            self._check_hash(offset, request)
            if request.request_id not in answered:
                self._check_prompts(request, claims.pop(request.request_id, []))
                answered.add(request.request_id)
            pending[request.user_id].append(_pending(offset, request))
        return pending

    def _requests(
        self, first: int, last: int | None = None
    ) -> Iterator[tuple[int, ProfileRequest]]:
        topic = "profile-requests"
        for offset, kafka_time, request in messages(self.log, topic, self.partition, first, last):
            assert isinstance(request, ProfileRequest)
            self.last_request_time = max(self.last_request_time, kafka_time)
            yield offset, request

    def _check_hash(self, offset: int, request: ProfileRequest) -> None:
        self.report.requests += 1
        if windows_hash(request.windows) != request.windows_hash:
            detail = f"windows_hash {request.windows_hash} is not the hash of the windows"
            self._request_differs("hash", offset, request.user_id, detail)

    def _check_prompts(self, request: ProfileRequest, claims: list[_Claim]) -> None:
        expected = text_hash(render(request)) if claims else ""
        for claim in claims:
            self.report.profiles += 1
            if claim.prompt_version != PROMPT_VERSION:
                self.report.other_prompts += 1
            elif claim.prompt_hash != expected:
                detail = f"prompt_hash {claim.prompt_hash}, rendered again {expected}"
                self._profile_differs("prompt", claim, detail)
            if claim.windows_hash != request.windows_hash:
                detail = f"windows_hash {claim.windows_hash}, the request's {request.windows_hash}"
                self._profile_differs("hash", claim, detail)

    def _check_unanswered(self, claims: dict[str, list[_Claim]]) -> None:
        """A profile's request is in the log, unless the recorder is just writing it."""
        for request_id, found in claims.items():
            for claim in found:
                self.report.profiles += 1
                if claim.kafka_time >= self.last_request_time:
                    self.report.waiting += 1
                else:
                    detail = f"its request {request_id} is not in the log"
                    self._profile_differs("prompt", claim, detail)

    def _check_windows(self, pending: dict[str, list[_Pending]]) -> None:
        for waiting in pending.values():  # as stacks: the next one to check is the last
            waiting.sort(key=lambda one: (one.applied_offset, one.offset), reverse=True)
        replay = Replay(self.settings.windows)
        last = max((waiting[0].applied_offset for waiting in pending.values()), default=NEVER)
        rows = interactions(self.log, self.partition, last=last, users=pending.keys())
        for offset, _, interaction in rows:
            waiting = pending[interaction.user_id]
            while waiting and waiting[-1].applied_offset < offset:
                self._check_one(replay, interaction.user_id, waiting.pop())
            if waiting and waiting[-1].remembers(offset, interaction.timestamp):
                replay.take(interaction, offset)
        self._check_rest(replay, pending)

    def _check_rest(self, replay: Replay, pending: dict[str, list[_Pending]]) -> None:
        logged = self.log.next_offset("interactions", self.partition)
        for user_id, waiting in pending.items():
            for one in reversed(waiting):
                if one.applied_offset >= logged:
                    self.report.waiting += 1
                else:
                    self._check_one(replay, user_id, one)

    def _check_one(self, replay: Replay, user_id: str, one: _Pending) -> None:
        replay.forget(user_id, one.history_from, one.forgotten_until)
        found = self._windows(replay.history(user_id), one.as_of)
        if windows_hash(found) != one.fingerprint:
            self._request_differs("windows", one.offset, user_id, self._difference(one, found))

    def _windows(self, history: History, as_of: int) -> Windows:
        return to_windows(views(history, as_of, self.settings.windows), lambda _: "")

    def _difference(self, one: _Pending, found: Windows) -> str:
        _, request = next(self._requests(one.offset, one.offset))
        return difference(_without_texts(request.windows), found)

    def _request_differs(self, kind: str, offset: int, user_id: str, detail: str) -> None:
        topic = "profile-requests"
        self.report.add(Mismatch(kind, topic, self.partition, offset, user_id, detail))

    def _profile_differs(self, kind: str, claim: _Claim, detail: str) -> None:
        place = ("profiles", self.partition, claim.offset, claim.user_id)
        self.report.add(Mismatch(kind, *place, detail))


def _pending(offset: int, request: ProfileRequest) -> _Pending:
    return _Pending(
        offset,
        request.applied_offset,
        request.history_from,
        request.forgotten_until,
        request.as_of,
        windows_hash(_without_texts(request.windows)),
    )


def _without_texts(windows: Windows) -> Windows:
    return Windows(
        **{
            name: tuple(entry.model_copy(update={"text": ""}) for entry in getattr(windows, name))
            for name in Windows.model_fields
        }
    )


def difference(logged: Windows, expected: Windows) -> str:
    """One line on the first entry in which two sets of windows differ."""
    for name in Windows.model_fields:
        pairs = zip_longest(getattr(logged, name), getattr(expected, name))
        for place, (ours, theirs) in enumerate(pairs):
            if ours != theirs:
                return f"window {name}, entry {place}: logged {ours}; by the events {theirs}"
    return "none"

"""The contracts with producers and consumers: one frozen model per topic value.

JSON, UTF-8. Unknown fields are ignored. Optional fields that are absent and fields that are
null mean the same. `palate schema TOPIC` prints the JSON Schema of each; docs/schemas/ holds
the same files.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

MAX_ID_CHARS: Final = 256
MAX_REVIEW_CHARS: Final = 20_000
MAX_TITLE_CHARS: Final = 100_000
MAX_DESCRIPTION_CHARS: Final = 1_000_000
MAX_STARS: Final = 5
EARLIEST_MS: Final = 631_152_000_000  # 1990-01-01; earlier is nearly always seconds sent as ms
LATEST_MS: Final = 4_102_444_800_000  # 2100-01-01

MAX_WHOLE: Final = 2**53  # the largest whole number that every JSON reader keeps exactly
MAX_PARTS: Final = 100  # of a score; a dict tells of every wrong value, a list of the first
MAX_SENTENCES: Final = 200  # of a section; a profile must fit into one record of the changelog

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}):([0-9]{2})(\.[0-9]+)?"
    r"(?:([Zz])|([+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))"
)
_LEAP: Final = "60"  # a second number that only the last minute of a day in UTC may have


def to_epoch_ms(value: Any) -> int:
    """RFC 3339 text (an offset is required) or epoch milliseconds → epoch milliseconds.

    Raises ValueError on anything else, including times before 1990 or after 2100.
    """
    if isinstance(value, bool):
        raise ValueError("a timestamp is RFC 3339 text or epoch milliseconds, not a boolean")
    if isinstance(value, str):
        value = int(value) if _INTEGER.fullmatch(value) else _parse_rfc3339(value)
    if isinstance(value, float) and value.is_integer():  # neither infinite nor NaN
        value = int(value)
    if not isinstance(value, int):
        raise ValueError("a timestamp is RFC 3339 text or epoch milliseconds")
    if not EARLIEST_MS <= value < LATEST_MS:
        raise ValueError("timestamp outside 1990..2100 (epoch times are in milliseconds)")
    return value


def _parse_rfc3339(text: str) -> int:
    """What RFC 3339 allows and no more: also `t` and `z`, a space for `T`, and leap seconds.

    23:59:60 UTC is the second that follows, as POSIX counts.
    """
    if len(text) > 64:
        raise ValueError("timestamp text longer than 64 characters")
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError("timestamp is not RFC 3339 with an offset; write 2010-12-01T08:26:00Z")
    day, clock, second, fraction, _, offset = found.groups(default="")
    leaps = second == _LEAP
    written = f"{day}T{clock}:{'59' if leaps else second}{fraction}{offset or '+00:00'}"
    moment = datetime.fromisoformat(written)
    if leaps:
        _check_leap(moment)
    return round(moment.timestamp() * 1000) + 1000 * leaps


def _check_leap(before: datetime) -> None:
    """Raises ValueError unless a leap second may follow the second `before`."""
    offset = before.utcoffset() or timedelta()
    minute = (before.replace(tzinfo=None) - datetime.min - offset) // timedelta(minutes=1)
    if (minute + 1) % (24 * 60):
        raise ValueError("timestamp with a second 60 that is not at 23:59:60 UTC")


def to_rfc3339(epoch_ms: int) -> str:
    """Epoch milliseconds → RFC 3339 text in UTC with milliseconds.

    A time that no calendar has (a producer's clock may give any) is told in milliseconds.
    """
    try:
        moment = datetime.fromtimestamp(epoch_ms / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return f"{epoch_ms} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _no_null_bytes(value: Any) -> Any:
    if isinstance(value, str) and "\x00" in value:
        raise ValueError("text contains a null byte")
    return value


def _only_number(value: Any) -> Any:
    """Pydantic would read true as 1 and "5" as 5; the importers refuse what is no number, too."""
    if isinstance(value, bool | str | bytes):
        raise ValueError("a number is needed, not text and neither true nor false")
    return value


def _few(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MAX_PARTS:
        raise ValueError(f"{len(value)} entries; at most {MAX_PARTS} are read")
    return value


T = TypeVar("T")
Listed = Annotated[tuple[T, ...], FailFast()]  # else a list of wrong values makes an error of each
EpochMs = Annotated[
    int,
    BeforeValidator(to_epoch_ms),
    PlainSerializer(to_rfc3339, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}],
            "description": "RFC 3339 with an offset, or epoch milliseconds; written as RFC 3339.",
        }
    ),
]
Id = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_ID_CHARS),
    BeforeValidator(_no_null_bytes),
]
_Number: Final = BeforeValidator(_only_number)
Stars = Annotated[float, Field(allow_inf_nan=False, ge=0, le=MAX_STARS), _Number]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12), _Number]
Component = Annotated[  # fits into a float16
    float, Field(strict=True, allow_inf_nan=False, ge=-1e4, le=1e4)
]
Count = Annotated[int, Field(ge=0, le=MAX_WHOLE), _Number]
Mark = Annotated[int, Field(ge=-1, le=MAX_WHOLE), _Number]  # an offset; -1: none yet
PartitionNumber = Annotated[int, Field(ge=0, lt=2**31), _Number]


class Message(BaseModel):
    """Base of topic values and their parts: immutable, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_json(self) -> bytes:
        """The wire bytes: UTF-8 JSON without absent fields."""
        return self.model_dump_json(exclude_none=True).encode()


class TopicValue(Message):
    """Base of whole topic values."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, found: Any) -> Any:
        """Clients of many languages write null for what they do not set."""
        if isinstance(found, dict) and None in found.values():
            return {name: value for name, value in found.items() if value is not None}
        return found


class InteractionType(StrEnum):
    """What a user did with an item."""

    IMPRESSION = "impression"
    VIEW = "view"
    CLICK = "click"
    CART = "cart"
    PURCHASE = "purchase"
    RATING = "rating"
    CANCEL = "cancel"
    HIDE = "hide"


class Interaction(TopicValue):
    """One thing a user did with an item. Topic `interactions`, key: the raw UTF-8 user_id."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"type": {"const": "rating"}}},
            "then": {"required": ["rating"]},
        }
    )

    event_id: Id = Field(description="Unique name of the event; a re-sent event keeps it.")
    user_id: Id = Field(description="Who did it; also the record's key.")
    item_id: Id = Field(description="With which item; it need not be known yet.")
    type: InteractionType = Field(description="What was done.")
    timestamp: EpochMs = Field(description="When it was done (event time).")
    rating: Stars | None = Field(
        default=None, description="Stars, 0 to 5; what type rating must have."
    )
    review: Annotated[str, StringConstraints(max_length=MAX_REVIEW_CHARS)] | None = Field(
        default=None, description="Free text of the user about the item."
    )
    quantity: Finite | None = Field(default=None, description="Units bought or cancelled.")
    price: Finite | None = Field(default=None, description="Price of one unit.")
    session_id: Id | None = Field(default=None, description="Visit or basket it belongs to.")
    recommendation_id: Id | None = Field(
        default=None, description="The recommendation that led to it, if one did."
    )
    position: Annotated[int, Field(ge=0, le=100_000), _Number] | None = Field(
        default=None, description="Rank (from 1) of the item in that recommendation."
    )

    @model_validator(mode="after")
    def _rating_has_stars(self) -> Self:
        if self.type is InteractionType.RATING and self.rating is None:
            raise ValueError("type rating needs a rating, 0 to 5 stars")
        return self


class Item(TopicValue):
    """One item of the catalogue. Topic `items`, key: item_id; a null value removes the item."""

    item_id: Id = Field(description="Name of the item; also the record's key.")
    title: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TITLE_CHARS)] = Field(
        description="What the item is called; data, never instructions."
    )
    brand: Annotated[str, StringConstraints(max_length=1_000)] | None = Field(
        default=None, description="Maker or label."
    )
    categories: Listed[Annotated[str, StringConstraints(max_length=1_000)]] = Field(
        default=(), max_length=64, description="Category path, general to specific."
    )
    description: Annotated[str, StringConstraints(max_length=MAX_DESCRIPTION_CHARS)] | None = Field(
        default=None, description="Longer text; its beginning is embedded."
    )
    price: Finite | None = Field(default=None, description="Price of one unit.")
    available: bool = Field(default=True, description="False: known, but not recommended.")


class WindowEntry(Message):
    """One interaction inside a profile request, with its item's text as resolved then."""

    event_id: str = Field(description="The interaction.")
    item_id: str = Field(description="Its item.")
    type: InteractionType = Field(description="What was done.")
    timestamp: EpochMs = Field(description="Event time.")
    text: str = Field(description="Short text of the item; empty while the item is unknown.")
    rating: Finite | None = Field(default=None, description="Stars, if given.")
    review: str | None = Field(default=None, description="Beginning of the review, cleaned.")
    quantity: Finite | None = Field(default=None, description="Units, if given.")


class Windows(Message):
    """The views of one history at `as_of`. Entries are oldest first.

    `long` holds the whole long span, `medium` and `short` the events inside their spans (each
    also in the longer ones), `avoids` the dislikes: cancelled pairs, low ratings, hidden items.
    """

    long: Listed[WindowEntry] = Field(default=(), description="Stable taste.")
    medium: Listed[WindowEntry] = Field(default=(), description="Current interests.")
    short: Listed[WindowEntry] = Field(default=(), description="Right now.")
    avoids: Listed[WindowEntry] = Field(default=(), description="Dislikes.")


class AppliedEdits(Message):
    """The user's own edits in force, folded from topic `profile-edits`."""

    pinned: Listed[str] = Field(default=(), description="Sentences the user pinned.")
    forbidden: Listed[str] = Field(default=(), description="Words never to be said or used.")
    replaced: Listed[tuple[str, str]] = Field(
        default=(), description="(section, text) the user wrote in place of the model's."
    )


class ProfileRequest(TopicValue):
    """Asks for a new profile. Topic `profile-requests`, key: user_id."""

    request_id: str = Field(description="Hash of user, applied offset, edits offset, as_of.")
    user_id: Id = Field(description="Whose profile.")
    number: Count = Field(description="Counts the requests of this user.")
    as_of: EpochMs = Field(description="Event time at which the windows were taken.")
    applied_offset: Mark = Field(description="Offset of the user's last applied interaction.")
    edits_offset: Mark = Field(default=-1, description="Offset of the last applied edit.")
    history_from: Count = Field(
        default=0, description="Interactions before this offset were forgotten at the user's wish."
    )
    forgotten_until: EpochMs | None = Field(
        default=None, description="So were interactions with an event time up to this."
    )
    partition: PartitionNumber = Field(
        description="Partition of the user in all user-keyed topics."
    )
    windows: Windows = Field(description="The three windows and the dislikes.")
    windows_hash: str = Field(description="sha256 of the windows with their texts.")
    edits: AppliedEdits = Field(default=AppliedEdits(), description="The user's edits in force.")
    rule: str = Field(description="Which rule fired: first, evidence, age, silent, hard, edit.")
    staleness: Finite = Field(description="Staleness score when the rule fired.")
    requested_at: EpochMs = Field(description="Wall time of the request.")
    schema_version: Count = Field(default=1, description="Version of this schema.")


class Section(StrEnum):
    """The four parts of a profile."""

    STABLE = "stable"
    CURRENT = "current"
    NOW = "now"
    AVOIDS = "avoids"


class Origin(StrEnum):
    """Who wrote a sentence."""

    MODEL = "model"
    EXTRACTIVE = "extractive"
    USER = "user"


class Sentence(Message):
    """One sentence of a profile and the events that it rests on."""

    text: str = Field(description="The sentence.")
    evidence: Listed[str] = Field(default=(), description="Event ids it rests on.")
    items: Listed[str] = Field(default=(), description="Item ids of these events.")
    origin: Origin = Field(default=Origin.MODEL, description="Who wrote it.")


Sentences = Annotated[Listed[Sentence], Field(max_length=MAX_SENTENCES)]


class Sections(Message):
    """A profile's sentences by section."""

    stable: Sentences = Field(default=(), description="Stable taste (long window).")
    current: Sentences = Field(default=(), description="Current interests (medium).")
    now: Sentences = Field(default=(), description="Right now (short window).")
    avoids: Sentences = Field(default=(), description="Cancelled, disliked, hidden.")


class TokenCounts(Message):
    """What a profile cost."""

    prompt: Count = Field(default=0, description="Tokens read by the model.")
    completion: Count = Field(default=0, description="Tokens written by the model.")


class SentenceCounts(Message):
    """How the grounding check went."""

    kept: Count = Field(default=0, description="Model sentences supported by events.")
    rejected: Count = Field(default=0, description="Model sentences without support, left out.")
    extractive: Count = Field(default=0, description="Sentences built from events instead.")


class Profile(TopicValue):
    """A user's taste in words. Topic `profiles` (compacted), key: user_id."""

    profile_id: Id = Field(
        description="Hash of user, applied offset, edits offset, as_of, release, prompt version; "
        "of that hash again if `fallback`, so that the model's profile differs from its stand-in."
    )
    user_id: Id = Field(description="Whose profile.")
    version: Count = Field(description="The request's number.")
    as_of: EpochMs = Field(description="Event time that it describes.")
    sections: Sections = Field(description="The sentences by section.")
    text: str = Field(description="All sections as one text of at most 256 tokens.")
    release: str = Field(description="Release that wrote it.")
    model: str = Field(description="Language model that wrote it; `extractive` if none did.")
    fallback: bool = Field(
        default=False, description="True: the model could not be reached; a retry follows."
    )
    request_id: str = Field(description="The request that it answers.")
    request_partition: PartitionNumber | None = Field(
        default=None, description="Where that request lies in topic profile-requests."
    )
    request_offset: Count | None = Field(default=None, description="Its offset there.")
    rule: str = Field(description="The rule that asked for it.")
    prompt_version: str = Field(description="Version of the prompt template.")
    prompt_hash: str = Field(description="sha256 of the rendered prompt.")
    windows_hash: str = Field(description="The request's hash of its windows.")
    applied_offset: Mark = Field(description="The request's applied offset.")
    edits_offset: Mark = Field(default=-1, description="The request's edits offset.")
    vector: Listed[Component] = Field(description="Unit embedding of the text.")
    vector_release: str = Field(description="Release whose embedder made the vector.")
    tokens: TokenCounts = Field(default=TokenCounts(), description="Cost in tokens.")
    sentences: SentenceCounts = Field(default=SentenceCounts(), description="Grounding counts.")
    latency_ms: Finite = Field(default=0.0, description="Time in the engine, milliseconds.")
    created_at: EpochMs = Field(description="Wall time when it was written.")
    schema_version: Count = Field(default=1, description="Version of this schema.")


class ReasonKind(StrEnum):
    """What a reason points at."""

    PROFILE = "profile"
    RECENT = "recent"
    COOCCURRENCE = "cooccurrence"
    POPULARITY = "popularity"


class Reason(Message):
    """Why an item was recommended."""

    kind: ReasonKind = Field(description="The score part that contributed most.")
    text: str = Field(description="The profile sentence or the recent item, readable.")
    evidence: Listed[str] = Field(default=(), description="Event ids behind it.")
    users: int | None = Field(
        default=None,
        description="How many people it rests on: who chose the recent item and this one at most "
        "100 choices apart (cooccurrence), or this one (popularity).",
    )
    of_users: int | None = Field(
        default=None, description="Of how many: who chose the recent item (cooccurrence)."
    )


class RecommendedItem(Message):
    """One line of a recommendation."""

    item_id: str = Field(description="The item.")
    rank: Count = Field(description="From 1.")
    score: Finite = Field(description="Sum of the weighted parts.")
    parts: Annotated[dict[str, Finite], BeforeValidator(_few)] = Field(
        max_length=MAX_PARTS, description="Weighted score parts by name."
    )
    reason: Reason = Field(description="Why.")


class Recommendation(TopicValue):
    """A ranked list for a user. Topic `recommendations`, key: user_id."""

    recommendation_id: str = Field(
        description="Hash of user, applied offset, edits offset, profile id, release, trigger."
    )
    user_id: Id = Field(description="For whom.")
    as_of: EpochMs = Field(description="Event time at which it was made.")
    trigger: Literal["event", "profile", "release", "edit"] = Field(description="What caused it.")
    applied_offset: Mark = Field(description="Last interaction it takes into account.")
    edits_offset: Mark = Field(default=-1, description="Last profile edit it takes into account.")
    profile_id: str | None = Field(default=None, description="The profile used, if any.")
    profile_version: Count | None = Field(default=None, description="Its version.")
    profile_as_of: EpochMs | None = Field(default=None, description="Its as_of.")
    release: str = Field(description="Release that served it.")
    cooccurrence: str | None = Field(default=None, description="Co-occurrence snapshot used.")
    items: Listed[RecommendedItem] = Field(description="The list, best first.")
    created_at: EpochMs = Field(description="Wall time when it was made.")
    event_received_at: EpochMs | None = Field(
        default=None, description="Kafka time of the newest event taken into account."
    )
    schema_version: Count = Field(default=1, description="Version of this schema.")


class ProfileEdit(TopicValue):
    """A user's own change to the profile. Topic `profile-edits`, key: user_id, kept for ever."""

    edit_id: Id = Field(description="Unique name of the edit.")
    user_id: Id = Field(description="Whose profile.")
    action: Literal["pin", "unpin", "forbid", "allow", "replace", "forget"] = Field(
        description="pin a sentence, forbid a word, replace a section, or forget the user."
    )
    text: Annotated[str, StringConstraints(max_length=2_000)] | None = Field(
        default=None, description="The sentence, word or section text."
    )
    section: Section | None = Field(default=None, description="Which section, for replace.")
    timestamp: EpochMs = Field(description="When the user made it.")


class ReleaseAnnouncement(TopicValue):
    """A step of a release's life. Topic `releases` (one partition).

    The last record with status `serving` names the release in force. The key is the release id
    for serving and retired, and "id/status/by" for the other steps, so that compaction never
    lets a later step take the place of `serving`.
    """

    release: Id = Field(description="Release id, for example base-0.")
    status: Literal[
        "published",
        "items-ready",
        "profiles-ready",
        "engine-ready",
        "refused",
        "serving",
        "retired",
    ] = Field(
        description="published (it is a candidate) → items-ready, profiles-ready (its tables are "
        "whole) and engine-ready (by each profiler) → serving; refused: a role cannot serve it; "
        "retired: its tables are gone."
    )
    manifest_sha256: str | None = Field(default=None, description="Hash of its manifest.")
    previous: str | None = Field(default=None, description="Release served before, if any.")
    detail: str | None = Field(default=None, description="Why it was refused, or what was shown.")
    at: EpochMs = Field(description="Wall time of the step.")
    by: str = Field(default="", description="Role or person that made the step.")


TOPIC_SCHEMAS: Final[dict[str, type[Message]]] = {
    "interactions": Interaction,
    "items": Item,
    "profile-requests": ProfileRequest,
    "profiles": Profile,
    "recommendations": Recommendation,
    "profile-edits": ProfileEdit,
    "releases": ReleaseAnnouncement,
}

"""Bytes that are nearly messages: tokens of JSON exchanged for others, and bytes for bytes.

What led to an outcome not seen before joins the corpus, so that later mutations start from it.
"""

from __future__ import annotations

import random
import re
from typing import Final

import orjson

from models.schemas import TOPIC_SCHEMAS
from tests.fuzz.seeds import NOW, seeds

MOST_KEPT: Final = 3_000  # inputs of a corpus
LONGEST: Final = 20_000  # bytes of an input that is mutated further

TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[][{}:,]')
VALUE: Final = re.compile(rb'"(?:[^"\\]|\\.)*"(?!:)|-?[0-9][0-9.eE+-]*|true|false|null')

NUMBERS: Final = [
    *(b"0", b"-0", b"-0.0", b"-1", b"1", b"2", b"0.1", b"1e2", b"1E-400", b"1e400", b"-1e400"),
    *(b"1e308", b"NaN", b"Infinity", b"-Infinity", b"+1", b"01", b"1.", b".5", b"0x10", b"1_000"),
    *(
        str(sign * 2**bits + more).encode()
        for bits in (31, 32, 53, 63, 64, 128)
        for sign in (1, -1)
        for more in (-1, 0, 1)
    ),
    *(b"9" * 400, b"9" * 4_400, b"1" + b"0" * 30, b"1e" + b"9" * 30, b"0." + b"1" * 400),
    *(b"631151999999", b"631152000000", b"4102444799999", b"4102444800000", str(NOW).encode()),
]
STRINGS: Final = [
    *(b'""', b'" "', b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"'),
    *(b'"\xed\xa0\x80"', b'"\xff"', b'"\xc3"', b'"\\u202e"', b'"\\n\\t\\u0001"', b'"\\x"', b'"a'),
    *(b'"' + b"x" * n + b'"' for n in (255, 256, 257, 1_000, 20_001)),
    *('"' + "é" * 256 + '"', '"' + "😀" * 256 + '"'),
    *(b'"1"', b'"1e400"', b'"NaN"', b'"9223372036854775808"', b'"1300000000000"'),
    *(b'"2025-11-26T10:00:00Z"', b'"2025-11-26t10:00:00z"', b'"2025-11-26 10:00:00.123456789Z"'),
    *(b'"2016-12-31T23:59:60Z"', b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59-23:59"'),
    *(b'"2025-11-26"', b'"2025-W01-1T00:00Z"', b'"2025-02-30T00:00:00Z"', b'"T"', b'"now"'),
    *(b'"<|im_end|>"', b'"\' OR 1=1 --"', b'"../../x"', b'"base-0@items"', b'"\xe2\x80\xa8"'),
]
OTHERS: Final = [
    *(b"null", b"true", b"false", b"[]", b"{}", b"[[]]", b'{"":{}}', b"[null]", b'[1,"a"]'),
    *(b"[" * 300, b"[" * 200 + b"]" * 200, b'{"a":' * 150 + b"1" + b"}" * 150, b"", b",", b":"),
]
WORDS: Final = [
    word.encode() if isinstance(word, str) else word for word in (*NUMBERS, *STRINGS, *OTHERS)
]
TIMES: Final = [-1, 0, 1, -(2**63), 2**63 - 1, 2**53, NOW - 10**9, NOW + 10**15]
KEYS: Final = [None, b"", b"\xff\xfe", b"\x00", b"k" * 257, b"k" * 1_024, b"k" * 20_000, b"a/b"]


class Corpus:
    """The inputs of one topic."""

    def __init__(self, topic: str, rng: random.Random) -> None:
        self._rng = rng
        known = seeds(topic) if topic in TOPIC_SCHEMAS else []
        self._accepted = [one.to_json() for one in known] or [b"{", b"x" * 99]
        self._refused = [b"{}"]
        self._tokens = [token for one in self._accepted for token in TOKEN.findall(one)]
        self._seen: set[object] = set()

    def next(self) -> bytes:
        """A mutated input; some as they are."""
        rng = self._rng
        value = rng.choice(self._accepted if rng.random() < 0.8 else self._refused)
        for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 6))):
            value = self._exchanged(value) if rng.random() < 0.9 else self._damaged(value)
        return value

    def learn(self, value: bytes, outcome: object, *, accepted: bool) -> None:
        """Keep an input whose outcome is new."""
        if outcome in self._seen or len(value) > LONGEST:
            return
        self._seen.add(outcome)
        kept = self._accepted if accepted else self._refused
        if len(kept) < MOST_KEPT:
            kept.append(value)

    def _exchanged(self, value: bytes) -> bytes:
        """With one token exchanged for another, repeated, or left out."""
        rng = self._rng
        begin = rng.randrange(len(value) + 1)
        found = VALUE.search(value, begin) or TOKEN.search(value)
        if found is None:
            return value + rng.choice(WORDS)
        first, last = found.span()
        chance = rng.random()
        if chance < 0.03:
            return value[:first] + value[last:]
        if chance < 0.06:
            return value[:last] + value[first:]
        return value[:first] + rng.choice(self._alike(found.group())) + value[last:]

    def _alike(self, token: bytes) -> list[bytes]:
        """What to put there: mostly of the same kind, so that what is behind the schema is met."""
        if self._rng.random() < 0.15:
            return WORDS if self._rng.random() < 0.5 else self._tokens
        if token[:1] == b'"':
            return _PLAIN if self._rng.random() < 0.5 else _STRINGS
        return NUMBERS if token[:1] in b"-0123456789" else WORDS

    def _damaged(self, value: bytes) -> bytes:
        rng = self._rng
        if not value:
            return rng.randbytes(8)
        place = rng.randrange(len(value))
        chance = rng.random()
        if chance < 0.4:
            return value[:place] + bytes([rng.randrange(256)]) + value[place + 1 :]
        if chance < 0.6:
            return value[:place]
        if chance < 0.8:
            return value[:place] + rng.randbytes(rng.randrange(9)) + value[place:]
        return value[place:] + value[:place]


# Such as a schema without a pattern takes: what lies behind it is to be met, too.
_PLAIN: Final = [
    f'"{text}"'.encode()
    for text in (
        *("x", " ", "é", "😀", "\\u0001\\n", "%s%n{0}", "null", "-1", "a'b", "a/b", "ǅ", "ß", "İ"),
        *("\\ud83d\\ude00", "\u0301", "\u200d", "\ufeff", "\uffff"),
        *(char * 250 for char in "aé😀"),
    )
]
_STRINGS: Final = [word for word in WORDS if word[:1] == b'"']


def headers(rng: random.Random) -> tuple[tuple[str, bytes], ...]:
    """Mostly none."""
    if rng.random() < 0.95:
        return ()
    names = ("palate-forwarded", "palate-topic", "palate-offset", "palate-timestamp", "", "é\x00")
    values = (b"1", b"", None, b"\xff", b"9" * 40, orjson.dumps(NOW), b"x" * 40_000)
    return tuple((rng.choice(names), rng.choice(values)) for _ in range(rng.randrange(5)))  # type: ignore[misc]

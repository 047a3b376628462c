"""Negations: which words of a text are said not to be there.

"Coffee without sugar" is evidence of coffee and of no sugar. So a word under a negation is
another word, in the title as in the statement: it carries a mark, and matches only its like. The
mark says all that the negating word says, which is taken out: "sugar-free" is "without sugar".

A negation holds for the next word (or the one before, such as "free") and what "or" joins to it,
never across punctuation. Of scripts without spaces it holds for what adjoins it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from models.text import IDEOGRAPHS, NEGATED, WORD, normal, stem, stems, tells, words
from models.words import (
    AFTER_WORDS,
    CHOOSING_WORDS,
    DISLIKING_WORDS,
    FREE_OTHERWISE,
    FROM_WORDS,
    FUNCTION_WORDS,
    HYPHENATED_AFTER,
    HYPHENATED_BEFORE,
    JOINING_WORDS,
    LIKING_WORDS,
    LINKING_WORDS,
    MISSING_WORDS,
    NEGATED_TOO,
    NOT_WORDS,
    WITHOUT_WORDS,
)

_NONE: Final = r"\bw/o\b|(?<![\d.,])0(?:[.,]0+)?\s?%"  # "w/o sugar", "0% fat"
_NONE_WORD: Final = re.compile(_NONE)
_TOKEN: Final = re.compile(f"{_NONE}|{WORD}")
_GAP: Final = re.compile(r"[\s'’\u2010-\u2013-]*")
_HYPHEN: Final = re.compile(r"[\u2010-\u2013-]")
_BEFORE: Final = WITHOUT_WORDS | NOT_WORDS
_AFTER: Final = AFTER_WORDS | HYPHENATED_AFTER
_PASSED_OVER: Final = FUNCTION_WORDS | LIKING_WORDS | DISLIKING_WORDS | LINKING_WORDS

# Chinese and Japanese, Thai, Lao, Khmer: what comes next. A verb between is negated with it.
_PREFIX: Final = re.compile(
    "(?:[無无不非未免零](?P<verb>(?<=[不未])(?:含有?|加|添加))?|[没沒]有?|(?<![ァ-ヺー])ノン"
    "|ไม่(?:มี|ใส่|ผสม|เติม)?|ไร้|ปลอด|ปราศจาก|ບໍ່(?:ມີ|ໃສ່)?|គ្មាន|មិន)(?=[^\\W_])"
    f"|(?<![\\d.,])0(?=[{IDEOGRAPHS}])"
)
# Japanese: the run of like characters before. フリース is fleece, フリーサイズ one size for all.
_SUFFIX: Final = re.compile(
    f"(?P<run>[{IDEOGRAPHS}]+|[ァ-ヺー]+?|[a-z]+)"
    "(?:[な無]し(?!(?![のでと])[ぁ-ゖ])|[抜ぬ]き|無添加|不使用"
    "|[をがはの]?(?:含ま|使わ|使用し|加え|入ら|入ってい)?ない"
    "|フリー(?![スサザランダマジク])|(?<![ァ-ヺー])ゼロ)"
)


@lru_cache(maxsize=8_192)
def marked(text: str, besides: frozenset[str] = frozenset()) -> str:
    """`text` as `normal`, each word under a negation marked and the negating words taken out.

    The words `besides` negate nothing here. Where there is no negation, nothing changes.
    """
    text = normal(text).replace(NEGATED, " ")
    tokens = [*_TOKEN.finditer(text)]
    starts = {*_adjoining(text)}
    gone: set[int] = set()
    for n, token in enumerate(tokens):
        if token.group() not in besides and (found := [*_bound(text, tokens, n)]):
            starts.update(found)
            gone.update(range(token.start(), token.end()))
    if not starts:
        return text
    return "".join(
        (NEGATED if at in starts else "") + (" " if at in gone else character)
        for at, character in enumerate(text)
    )


def said_stems(text: str) -> frozenset[str]:
    """All that statements may take from `text`: its stems, with negated words marked.

    A statement may also end in a negating word ("لا" of "لا إله"), for that alone claims nothing.
    """
    return stems(marked(text)) | {stem(word) for word in words(text) if word in _BEFORE}


def _bound(text: str, tokens: list[re.Match[str]], n: int) -> Iterator[int]:
    """Where the words begin that the word `n` negates."""
    word = tokens[n].group()
    after = tokens[n + 1].group() if n + 1 < len(tokens) and _adjoin(text, tokens, n) else ""
    before = tokens[n - 1].group() if n and _adjoin(text, tokens, n - 1) else ""
    if word in _AFTER and after in FROM_WORDS:
        yield from _next(text, tokens, n + 1)
    elif (word in _AFTER and (word not in _BEFORE or before in LINKING_WORDS)) or (
        word in NOT_WORDS and after in MISSING_WORDS
    ):
        hyphened = before and _HYPHEN.search(text, tokens[n - 1].end(), tokens[n].start())
        if hyphened or not (word in HYPHENATED_AFTER or after in FREE_OTHERWISE):
            yield from _previous(text, tokens, n)
    elif (
        word in _BEFORE
        or _NONE_WORD.fullmatch(word)
        or (word in HYPHENATED_BEFORE and after and text[tokens[n].end()] == "-")
    ):
        yield from _next(text, tokens, n)


def _next(text: str, tokens: list[re.Match[str]], n: int) -> Iterator[int]:
    # "No mail and flyers" may well be with flyers, "without mail and flyers" hardly.
    joining = CHOOSING_WORDS | (JOINING_WORDS if tokens[n].group() not in NOT_WORDS else set())
    wanted = True
    for at in range(n + 1, len(tokens)):
        word = tokens[at].group()
        if not _adjoin(text, tokens, at - 1) or word in _BEFORE or word[0].isdigit():
            return
        if wanted and tells(word) and word not in _PASSED_OVER:
            yield tokens[at].start()
            wanted = word in NEGATED_TOO
        elif not wanted and word in joining:
            wanted = True
        elif not wanted:
            return


def _previous(text: str, tokens: list[re.Match[str]], n: int) -> Iterator[int]:
    wanted = True
    for at in range(n - 1, -1, -1):
        word = tokens[at].group()
        if not _adjoin(text, tokens, at):
            return
        if wanted and word not in LINKING_WORDS:
            if not tells(word) or word[0].isdigit() or word in _PASSED_OVER:
                return
            yield tokens[at].start()
            wanted = False
        elif not wanted and word in CHOOSING_WORDS | JOINING_WORDS:
            wanted = True
        elif not wanted:
            return


def _adjoin(text: str, tokens: list[re.Match[str]], n: int) -> bool:
    """Whether nothing but a space or a hyphen parts a word from the next."""
    return _GAP.fullmatch(text, tokens[n].end(), tokens[n + 1].start()) is not None


def _adjoining(text: str) -> Iterator[int]:
    """Where the negated characters are in scripts without spaces."""
    if text.isascii():
        return
    for found in _PREFIX.finditer(text):
        yield found.end()
        if found.group("verb"):
            yield found.start("verb")
    for found in _SUFFIX.finditer(text):
        yield from range(*found.span("run"))

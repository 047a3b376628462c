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

# "w/o sugar", "0% fat", "0 g sugar", "0 calories", "제로 슈거"
_NONE: Final = (
    r"\bw/o(?:ut)?\b|(?<![\w.,])0(?:[.,]0+)?\s?(?:%|(?:m?g|kcal)\b(?=\s?[^\W\d]))"
    r"|(?<![\w.,-])0(?=\s(?:sugars?|calories?|carbs?|fat|alcohol|caffeine|sodium)\b)"
    r"|\b(?:제로|노)(?=\s?(?:슈[가거]|설탕|칼로리|카페인|알코올|알콜))"
)
_TOKEN: Final = re.compile(f"(?P<none>{_NONE})|{WORD}")
_GAP: Final = re.compile(r"[\s'’\u2010-\u2013-]*")
_OR: Final = re.compile(r"\s*/\s*")
_AND: Final = re.compile(r"\s*&\s*")
_HYPHEN: Final = re.compile(r"[\u2010-\u2013-]")
_BEFORE: Final = WITHOUT_WORDS | NOT_WORDS
_AFTER: Final = AFTER_WORDS | HYPHENATED_AFTER
_PASSED_OVER: Final = FUNCTION_WORDS | LIKING_WORDS | DISLIKING_WORDS | LINKING_WORDS

# Chinese and Japanese, Thai, Lao, Khmer: what comes next. A verb between is negated with it. With
# 无添加 alone nothing is added at all; it says so of what comes next if that is an additive.
_ADDITIVE: Final = "蔗?糖|防腐|香[精料]|色素|味精|[盐鹽]|甜味|人工"
_VERB: Final = (
    f"(?<=[不未没沒])(?:含有?|添?加|放|使?用(?=[{IDEOGRAPHS}]))"
    f"|(?<=[无無零])(?:含有?|添加(?={_ADDITIVE}))"
)
_PREFIX: Final = re.compile(
    f"(?:(?:[無无不非未免零脱脫]|[没沒](?!有))(?P<verb>{_VERB})?"
    "|[没沒]有|(?<![ァ-ヺー])ノン|(?<![ァ-ヺー])ノー(?=スリーブ|シュガー|カフェイン|アルコール|ワイヤ)"
    "|ไม่(?:มี|ใส่|ผสม|เติม)?|ไร้|ปลอด|ปราศจาก|ບໍ່(?:ມີ|ໃສ່)?|គ្មាន|មិន)(?=[^\\W_])"
    f"|(?<![\\d.,])0(?P<none>添加(?={_ADDITIVE}))?(?=[{IDEOGRAPHS}])"
)
# Words that are negated by レス; ドレス, ネックレス, ステンレス and many others only end so.
_LESS: Final = (
    "(?<=カフェイン)|(?<=シュガー)|(?<=グルテン)|(?<=アルコール)|(?<=オイル)"
    "|(?<=コード)|(?<=ケーブル)|(?<=ワイヤ)|(?<=シーム)|(?<=スリーブ)"
)
# Japanese: the run of like characters before. フリース is fleece, フリーサイズ one size for all.
_SUFFIX: Final = re.compile(
    f"(?P<run>[{IDEOGRAPHS}]{{1,40}}|[ァ-ヺー]{{1,40}}?|[a-z]{{1,40}})"
    "(?:[な無]し(?!(?![のでと])[ぁ-ゖ])|[抜ぬ]き|無添加|不使用"
    "|[をがはの]?(?:含ま|使わ|使用し|加え|入ら|入ってい)?ない"
    "|[をがはも]?(?:含み|含んで|使って|使い|使用し|使用して|加えて|入って|付き|付いて|付属し)"
    "い?ません"
    "|フリー(?![スサザランダマジク])|(?<![ァ-ヺー])ゼロ|(?<![a-z])0(?:[.,]0+)?%?(?![\\d.,%年月日])"
    f"|不要|別売|(?:{_LESS})レス)"
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
        (word in NOT_WORDS and after in MISSING_WORDS) or (word, after) == ("sold", "separately")
    ):
        hyphened = before and _HYPHEN.search(text, tokens[n - 1].end(), tokens[n].start())
        if hyphened or not (word in HYPHENATED_AFTER or after in FREE_OTHERWISE):
            yield from _previous(text, tokens, n)
    elif (
        word in _BEFORE
        or tokens[n].group("none")
        or (word in HYPHENATED_BEFORE and after and text[tokens[n].end()] == "-")
    ):
        yield from _next(text, tokens, n)


def _next(text: str, tokens: list[re.Match[str]], n: int) -> Iterator[int]:
    # "No mail and flyers" may well be with flyers, "without mail and flyers" hardly.
    both = tokens[n].group() not in NOT_WORDS
    joining = CHOOSING_WORDS | (JOINING_WORDS if both else set())
    wanted = True
    for at in range(n + 1, len(tokens)):
        word = tokens[at].group()
        if not wanted and _parted(text, tokens, at - 1, by=(_OR, _AND) if both else (_OR,)):
            wanted = True
        elif not _adjoin(text, tokens, at - 1) or word in _BEFORE or word[0].isdigit():
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
        if not wanted and _parted(text, tokens, at, by=(_OR, _AND)):
            wanted = True
        elif not _adjoin(text, tokens, at):
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
    return _parted(text, tokens, n, by=(_GAP,))


def _parted(
    text: str, tokens: list[re.Match[str]], n: int, by: tuple[re.Pattern[str], ...]
) -> bool:
    start, end = tokens[n].end(), tokens[n + 1].start()
    return any(sign.fullmatch(text, start, end) for sign in by)


def _adjoining(text: str) -> Iterator[int]:
    """Where the negated characters are in scripts without spaces."""
    if text.isascii():
        return
    for found in _PREFIX.finditer(text):
        yield found.end()
        yield from (found.start(verb) for verb in ("verb", "none") if found.group(verb))
    for found in _SUFFIX.finditer(text):
        yield from range(*found.span("run"))

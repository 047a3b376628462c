"""Negations: which words of a text are said not to be there.

"Coffee without sugar" is evidence of coffee and of no sugar. So a word under a negation is
another word, in the title as in the statement: it carries a mark, and matches only its like. The
mark says all that the negating word says, which is taken out: "sugar-free" is "without sugar".

A negation holds for the next word (or the one before, such as "free") and what "or" joins to it,
never across punctuation; only an answer holds across its colon ("sugar: none"). A prefix
("non-slip") holds for its one word. Of scripts without spaces a negation holds for what adjoins it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from models.profile.words import (
    ABBREVIATED_WORDS,
    AFTER_WORDS,
    CHOOSING_WORDS,
    DETERMINERS,
    DISLIKING_WORDS,
    FREE_OTHERWISE,
    FROM_WORDS,
    FUNCTION_WORDS,
    HYPHENATED_AFTER,
    HYPHENATED_BEFORE,
    JOINING_WORDS,
    LIKING_WORDS,
    LINKING_WORDS,
    MEASURED_WORDS,
    MISSING_WORDS,
    NEGATED_TOO,
    NONE_WORDS,
    NOT_WORDS,
    NUMBERED_WORDS,
    PREFIX_WORDS,
    QUALITY_WORDS,
    REMOVED_WORDS,
    WITHOUT_WORDS,
    ZERO_WORDS,
)
from models.text import IDEOGRAPHS, NEGATED, WORD, normal, stem, stems, tells, words

# "w/o sugar", "노슈거"; "0% fat", "0 g sugar"; a 0 that is no part of a number.
_WITHOUT: Final = r"\bw/o(?:ut)?\b|\b(?:제로|노)(?=\s?(?:슈[가거]|설탕|칼로리|카페인|알코올|알콜))"
_AMOUNT: Final = r"(?<![\w.,])0(?:[.,]0+)?\s?(?:%|(?:m?g|grams?|k?cal)\b)"
_ZERO: Final = r"(?<![\w.,/-])0(?!\w|[.,/-]\d)"
_TOKEN: Final = re.compile(
    f"(?P<without>{_WITHOUT})|(?P<amount>{_AMOUNT})|(?P<zero>{_ZERO})|{WORD}"
)
_GAP: Final = re.compile(r"[\s'’\u2010-\u2013-]*")
_COLON: Final = re.compile(r"\s*:\s*")
_DOT: Final = re.compile(r"\.[\s:]*")
_OR: Final = re.compile(r"\s*/\s*")
_AND: Final = re.compile(r"\s*&\s*")
_HYPHEN: Final = re.compile(r"[\u2010-\u2013-]")
_BEFORE: Final = WITHOUT_WORDS | NOT_WORDS
_AFTER: Final = AFTER_WORDS | HYPHENATED_AFTER
_PASSED_OVER: Final = FUNCTION_WORDS | LIKING_WORDS | DISLIKING_WORDS | LINKING_WORDS

# Chinese and Japanese, Thai, Lao, Khmer: what comes next. A verb between is negated with it. With
# 无添加 alone nothing is added at all; it says so of what comes next if that is an additive.
# Of food, and taken off it: "去皮". 去头皮屑 is of the scalp, 去毛球 and 去油污 of cleaning.
_PARTS: Final = (
    "[皮核骨壳殼籽刺鳞鱗蒂芯心尾肠腸脏臟筋脂糖盐鹽腥渣梗]|咖啡因|[头頭](?!皮)|毛(?!球)|油(?!污)"
)
_ADDITIVE: Final = "蔗?糖|防腐|香[精料]|色素|味精|[盐鹽]|甜味|人工"
_VERB: Final = (
    f"(?<=[不未没沒])(?:含有?|添?加|放|使?用(?=[{IDEOGRAPHS}]))"
    f"|(?<=[无無零])(?:含有?|添加(?={_ADDITIVE}))"
)
_PREFIX: Final = re.compile(
    f"(?:(?:[無无不非未免零脱脫]|[没沒](?!有))(?P<verb>{_VERB})?"
    "|[没沒]有|(?<![ァ-ヺー])ノン|(?<![ァ-ヺー])ノー(?=スリーブ|シュガー|カフェイン|アルコール|ワイヤ)"
    "|ไม่(?:มี|ใส่|ผสม|เติม)?|ไร้|ปลอด|ปราศจาก|ບໍ່(?:ມີ|ໃສ່)?|គ្មាន|មិន)(?=[^\\W_])"
    f"|(?<![过過回出失死上下进進])去[除掉]?(?={_PARTS})"
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
    "(?:(?:\\s?:\\s?)?(?:[な無]し(?!(?![のでと])[ぁ-ゖ])|無添加|不使用|(?<![ァ-ヺー])ゼロ)"
    "|\\s?:\\s?[无無](?![^\\W_])|[抜ぬ]き"
    "|[をがはの]?(?:含ま|使わ|使用し|加え|入ら|入ってい)?ない"
    "|[をがはも]?(?:含み|含んで|使って|使い|使用し|使用して|加えて|入って|付き|付いて|付属し)"
    "い?ません"
    "|フリー(?![スサザランダマジク])|(?<![a-z])0(?:[.,]0+)?%?(?![\\d.,%年月日])"
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
    after, before = _after(text, tokens, n), _before(text, tokens, n)
    if word in ZERO_WORDS or tokens[n].group("amount") or tokens[n].group("zero"):
        yield from _of_a_zero(text, tokens, n)
    elif word in NONE_WORDS and _answers(text, tokens, n):
        yield from _previous(text, tokens, n)
    elif word in NOT_WORDS and _after(text, tokens, n + (after == "t")) in MISSING_WORDS:
        yield from _missing(text, tokens, n, n + (after == "t"))
    elif word in _AFTER and after in FROM_WORDS:
        yield from _next(text, tokens, n + 1)
    elif word in _AFTER and (word not in _BEFORE or before in LINKING_WORDS):
        hyphened = before and _HYPHEN.search(text, tokens[n - 1].end(), tokens[n].start())
        if hyphened or not (word in HYPHENATED_AFTER or after in FREE_OTHERWISE):
            yield from _previous(text, tokens, n, answers=not after)
    elif word in REMOVED_WORDS or (word, after) == ("sold", "separately"):
        yield from _previous(text, tokens, n)
    elif word in ABBREVIATED_WORDS:
        yield from [*_next(text, tokens, n)] or _previous(text, tokens, n)
    elif (
        word in _BEFORE
        or tokens[n].group("without")
        or (word in HYPHENATED_BEFORE and after and text[tokens[n].end()] == "-")
    ):
        yield from _next(text, tokens, n)


def _of_a_zero(text: str, tokens: list[re.Match[str]], n: int) -> Iterator[int]:
    """What there is none of: the measured word beside a zero, the next one first."""
    word, amount = tokens[n].group(), tokens[n].group("amount")
    after, before = _after(text, tokens, n), _before(text, tokens, n, by=(_GAP, _COLON, _DOT))
    colon = n and _COLON.fullmatch(text, tokens[n - 1].end(), tokens[n].start())
    if before in NUMBERED_WORDS:
        return
    if after in MEASURED_WORDS or (after in NEGATED_TOO and not colon):
        yield from _next(text, tokens, n)
    elif before in MEASURED_WORDS or (colon and amount):
        yield from _previous(text, tokens, n)
    elif amount or word in _BEFORE:
        yield from _next(text, tokens, n)


def _answers(text: str, tokens: list[re.Match[str]], n: int) -> bool:
    """Whether "none" is all that is said of the word before it."""
    after = _after(text, tokens, n)
    numbered = n + 1 < len(tokens) and tokens[n + 1].group()[0].isdigit()  # "candle: no. 5"
    if not n or numbered or (after and after not in MISSING_WORDS):
        return False
    colon = _parted(text, tokens, n - 1, by=(_COLON,))
    return colon or _before(text, tokens, n) in MEASURED_WORDS


def _missing(text: str, tokens: list[re.Match[str]], n: int, last: int) -> Iterator[int]:
    """ "Batteries not included", "sugar isn't added", but "no added sugar".

    `last`: where "not" ends, the "t" of "isn't".
    """
    if tokens[n].group() in DETERMINERS and _after(text, tokens, n + 1):
        yield from _next(text, tokens, n)
    else:
        yield from [*_previous(text, tokens, n)] or _next(text, tokens, last + 1)


def _after(text: str, tokens: list[re.Match[str]], n: int) -> str:
    """The word that adjoins the word `n`; "" if there is none."""
    return tokens[n + 1].group() if n + 1 < len(tokens) and _adjoin(text, tokens, n) else ""


def _before(
    text: str, tokens: list[re.Match[str]], n: int, by: tuple[re.Pattern[str], ...] = (_GAP,)
) -> str:
    return tokens[n - 1].group() if n and _parted(text, tokens, n - 1, by) else ""


def _next(text: str, tokens: list[re.Match[str]], n: int) -> Iterator[int]:
    # "No mail and flyers" may well be with flyers, "without mail and flyers" hardly.
    both = tokens[n].group() not in NOT_WORDS
    joining = CHOOSING_WORDS | (JOINING_WORDS if both else set())
    signs = () if _is_prefix(text, tokens, n) else (_OR, _AND) if both else (_OR,)
    wanted = True
    for at in range(n + 1, len(tokens)):
        word, joined = tokens[at].group(), not wanted
        if not wanted and _parted(text, tokens, at - 1, signs):
            wanted = True
        elif not _parted(text, tokens, at - 1, _leads(tokens, n) if at == n + 1 else (_GAP,)):
            return
        if word in _BEFORE or word[0].isdigit() or (joined and word in QUALITY_WORDS):
            return
        if wanted and tells(word) and word not in _PASSED_OVER:
            yield tokens[at].start()
            wanted = word in NEGATED_TOO
        elif not wanted and word in joining:
            wanted = True
        elif not wanted:
            return


def _is_prefix(text: str, tokens: list[re.Match[str]], n: int) -> bool:
    """Whether the word `n` makes one word with the next: "non-slip/washable" is washable."""
    hyphened = n + 1 < len(tokens) and _parted(text, tokens, n, by=(_HYPHEN,))
    return hyphened or tokens[n].group() in PREFIX_WORDS


def _leads(tokens: list[re.Match[str]], n: int) -> tuple[re.Pattern[str], ...]:
    """What may part a negating word from what it negates: "without: sugar", "excl. sugar"."""
    word = tokens[n].group()
    if word in ABBREVIATED_WORDS:
        return _GAP, _COLON, _DOT
    listing = word in (WITHOUT_WORDS - ZERO_WORDS) | MISSING_WORDS
    return (_GAP, _COLON) if listing else (_GAP,)


def _previous(
    text: str, tokens: list[re.Match[str]], n: int, *, answers: bool = True
) -> Iterator[int]:
    """`answers`: whether the negation holds across a colon too."""
    wanted, joined = True, False
    for at in range(n - 1, -1, -1):
        word = tokens[at].group()
        if not wanted and _parted(text, tokens, at, by=(_OR, _AND)):
            wanted = joined = True
        elif not _parted(text, tokens, at, (_GAP, _COLON) if answers and at == n - 1 else (_GAP,)):
            return
        if joined and wanted and word in QUALITY_WORDS:
            return
        if wanted and word not in LINKING_WORDS:
            if not tells(word) or word[0].isdigit() or word in _PASSED_OVER:
                return
            yield tokens[at].start()
            wanted = False
        elif not wanted and word in CHOOSING_WORDS | JOINING_WORDS:
            wanted = joined = True
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

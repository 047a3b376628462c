"""Text that came from outside: cleaned, shortened, and taken apart into words.

Titles and reviews are data (architecture, property 11). `clean` is the one gate that they pass:
behind it no control character, no chat-template token and none of the characters that such
tokens are made of is left, on a single line of bounded length.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import groupby
from typing import Final

import snowballstemmer

from models.schemas import Item

NEGATED: Final = (
    "~"  # before a word under a negation (models.profile.negation); `clean` takes it out
)
TITLE_CHARS: Final = 120  # of an item's short text in requests, prompts and reasons
MAX_WORD_CHARS: Final = 40  # longer "words" are cut before stemming and caching
GRAM: Final = 3  # neighbouring characters: by two, "cat's umbrella" follows from "dog's umbrella"

_PLAIN: Final = re.compile(r"[A-Za-z0-9 .,;:'!?&%+()/-]*")
_CHAT_TOKEN: Final = re.compile(r"</?[\w| -]{1,40}/?>|<<.{1,20}?>>|\[/?[A-Z_]{2,24}\]")
# Markup of chats, tags, Markdown and JSON; brackets become round ones, the rest spaces.
_MARKUP: Final = str.maketrans(
    {
        **dict.fromkeys('<>|#`*_\\~^=\u2581"', " "),
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
    }
)
_VARIATIONS: Final = range(0xFE00, 0xFE10)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M" and ord(character) not in _VARIATIONS


def _ranges(kind: Callable[[str], bool]) -> str:
    """A regular expression's class of the characters of a kind."""
    codes = range(0x300, 0x1F000)  # there are no marks before, and none behind that words have
    groups = groupby(codes, lambda code: kind(chr(code)))
    spans = [list(group) for found, group in groups if found]
    return "".join(f"{chr(span[0])}-{chr(span[-1])}" for span in spans)


# Vowel signs, tone marks and accents belong to the letter before them.
_MARKS: Final = _ranges(_is_mark)
WORD: Final = rf"[^\W_]+(?:[{_MARKS}]+[^\W_]*)*"
_WORD: Final = re.compile(rf"{NEGATED}?{WORD}(?:{NEGATED}{WORD})*")
_PLAIN_WORD: Final = re.compile(rf"{NEGATED}?[^\W_]+")
# Scripts without spaces: a run of them is a phrase or a sentence, not a word.
IDEOGRAPHS: Final = (
    "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_LARGEST_ESCAPE: Final = 6  # bytes: \u001f
_UNSPACED: Final = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\u1b00-\u1b7f\ua980-\ua9df"  # Balinese, Javanese
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # Hiragana, Katakana, Bopomofo
    "\ua000-\ua48f" + IDEOGRAPHS  # Yi; Chinese, Japanese
)
_PARTS: Final = re.compile(
    rf"((?:{NEGATED}?[{_UNSPACED}][{_MARKS}]*)+)|({NEGATED}?[^{_UNSPACED}{NEGATED}]+)"
)
_CHARACTER: Final = re.compile(rf"{NEGATED}?[^{_MARKS}][{_MARKS}]*")
# One character that is a word or a syllable which is often one: 茶, 책 and ཇ are tea, book, tea.
# A kana, or a letter of an alphabet, is seldom a word; with a vowel sign it counts as two.
_SYLLABLE: Final = re.compile(
    rf"[{IDEOGRAPHS}\uac00-\ud7a3\ua000-\ua48c\u0f40-\u0f6c]"  # Hangul, Yi, Tibetan
)
_UNSEEN: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]"
)  # Unicode's default ignorables that titles hold: joiners, variation selectors, soft hyphens
# Vowel points and stretches that writers of Arabic and Hebrew add or leave out.
_OPTIONAL: Final = re.compile(
    "[\u0640\u064b-\u0652\u0670"  # Arabic: tatweel, harakat, superscript alef
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"  # Hebrew: accents and niqqud
)
_DOTTED_I: Final = ("i\u0307", "i")  # what İ becomes by case-folding
_INVISIBLE: Final = frozenset({"Cf", "Cs", "Co", "Cn"})  # zero-width, RTL marks, surrogates
_SPACE: Final = frozenset({"Cc", "Zl", "Zp", "Zs"})


def clean(text: str, max_chars: int) -> str:
    """One line of at most `max_chars` characters, without anything that a chat template means.

    Control and invisible characters, chat tokens and markup are taken out, compatibility forms
    unified (NFKC), white space collapsed. Cleaning twice changes nothing.
    """
    head = text[: 4 * max_chars + 200]  # 50 kB titles cost no more than short ones
    if not _PLAIN.fullmatch(head):
        head = _visible(unicodedata.normalize("NFKC", _visible(head)))
        head = _CHAT_TOKEN.sub(" ", head).translate(_MARKUP)
    return shorten(" ".join(head.split()), max_chars)


def _visible(text: str) -> str:
    return "".join(_shown(character) for character in text)


@lru_cache(maxsize=4096)
def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category in _INVISIBLE:
        return ""
    return " " if category in _SPACE else character


def shorten(text: str, max_chars: int) -> str:
    """`text` cut to `max_chars`, between words where a word ends in the second half."""
    if len(text) <= max_chars:
        return text
    cut = text.rfind(" ", max_chars // 2, max_chars + 1)
    return text[: cut if cut > 0 else max_chars].rstrip()


def json_size(text: str) -> int:
    """Bytes of `text` as JSON, with its quotes."""
    return len(json.dumps(text, ensure_ascii=False).encode(errors="replace"))


def within_bytes(text: str, most: int) -> str:
    """`text`, cut where its JSON would have more than `most` bytes."""
    if _LARGEST_ESCAPE * len(text) + 2 <= most or json_size(text) <= most:
        return text
    fitting = bisect_right(range(most), most, key=lambda end: json_size(text[:end] + "…"))
    return text[: max(0, fitting - 1)] + "…"


def item_text(item: Item, max_chars: int = TITLE_CHARS) -> str:
    """Short text of an item: title, then brand and last category where they add a word."""
    parts = [readable(clean(item.title, max_chars))]
    for extra in (item.brand, item.categories[-1] if item.categories else None):
        added = readable(clean(extra, max_chars // 2)) if extra else ""
        if added and not stems(added) <= stems(" ".join(parts)):
            parts.append(added)
    return shorten(", ".join(part for part in parts if part), max_chars)


def embedding_text(item: Item, description_chars: int) -> str:
    """Text of an item for the embedder: title, brand, category path, start of the description."""
    parts = [
        clean(item.title, 4 * TITLE_CHARS),
        clean(item.brand or "", TITLE_CHARS),
        " > ".join(filter(None, (clean(name, TITLE_CHARS) for name in item.categories))),
        clean(item.description or "", description_chars),
    ]
    return ". ".join(part for part in parts if part)


def readable(text: str) -> str:
    """SHOUTED text in sentence case; other text as it is."""
    letters = [character for character in text if character.isalpha()]
    shouted = sum(character.isupper() for character in letters)
    if len(letters) < 5 or shouted < 0.8 * len(letters):
        return text
    return text[:1].upper() + text[1:].lower()


def words(text: str) -> Iterator[str]:
    """Runs of letters and digits with their marks, case-folded, in order.

    In scripts without spaces each character is one, for nothing tells where a word ends.
    """
    for run in _runs(text.replace(NEGATED, " ")):
        yield from (run,) if isinstance(run, str) else run


def claims(text: str) -> Iterator[str]:
    """What must be found in a title so that it says `text`: words, and of scripts without spaces
    every three neighbouring characters, or as many as there are. Marks of `NEGATED` stay.
    """
    for run in _runs(text):
        yield from (run,) if isinstance(run, str) else _grams(run, min(GRAM, len(run)))


def _runs(text: str) -> Iterator[str | list[str]]:
    """Words, and runs of a script without spaces as their characters."""
    if text.isascii():  # most are, and it is four times as fast
        for plain in _PLAIN_WORD.finditer(text):
            yield plain.group().casefold()[:MAX_WORD_CHARS]
        return
    for found in _WORD.finditer(normal(text)):
        for unspaced, word in _PARTS.findall(found.group()):
            yield _CHARACTER.findall(unspaced) if unspaced else word[:MAX_WORD_CHARS]


def normal(text: str) -> str:
    """Case-folded in the form NFKC, without what is not seen and marks that may be left out."""
    if text.isascii():
        return text.casefold()
    folded = unicodedata.normalize("NFKC", text).casefold().replace(*_DOTTED_I)
    return _OPTIONAL.sub("", _UNSEEN.sub("", unicodedata.normalize("NFKC", folded)))


def _grams(characters: list[str], size: int) -> Iterator[str]:
    for start in range(len(characters) - size + 1):
        yield "".join(characters[start : start + size])


def tells(word: str) -> bool:
    """Whether a word is more than a letter: two letters or more, or one that is a syllable."""
    return letters(word) > 1 or _SYLLABLE.fullmatch(word.lstrip(NEGATED)) is not None


def letters(word: str) -> int:
    """Letters of a word, its vowel signs and other marks among them."""
    return sum(character.isalpha() or _is_mark(character) for character in word)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Snowball (English) stem of one case-folded word."""
    if word.startswith(NEGATED):
        return NEGATED + stem(word[len(NEGATED) :])
    # A stemmer keeps its word in itself while it works, so threads must not share one.
    return str(snowballstemmer.stemmer("english").stemWord(word))


@lru_cache(maxsize=8_192)
def stems(text: str) -> frozenset[str]:
    """Stems of all words of `text`, and all that `claims` may ask of it."""
    found: set[str] = set()
    for run in _runs(text):
        if isinstance(run, str):
            found.add(stem(run))
        else:
            found.update(gram for size in range(1, GRAM + 1) for gram in _grams(run, size))
    return frozenset(found)

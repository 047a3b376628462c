"""Text that came from outside: cleaned, shortened, and taken apart into words.

Titles and reviews are data (architecture, property 11). `clean` is the one gate that they pass:
behind it no control character, no chat-template token and none of the characters that such
tokens are made of is left, on a single line of bounded length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import snowballstemmer

from models.schemas import Item

TITLE_CHARS: Final = 120  # of an item's short text in requests, prompts and reasons
MAX_WORD_CHARS: Final = 40  # longer "words" are cut before stemming and caching

_WORD: Final = re.compile(r"[^\W_]+")
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
    """Runs of letters and digits, case-folded, in order."""
    for found in _WORD.finditer(text):
        yield found.group().casefold()[:MAX_WORD_CHARS]


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Snowball (English) stem of one case-folded word."""
    # A stemmer keeps its word in itself while it works, so threads must not share one.
    return str(snowballstemmer.stemmer("english").stemWord(word))


@lru_cache(maxsize=8_192)
def stems(text: str) -> frozenset[str]:
    """Stems of all words of `text`."""
    return frozenset(stem(word) for word in words(text))

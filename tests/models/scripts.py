"""Titles in many scripts, made of letters and the marks that belong to them."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

# Script → (letters, marks that may follow one).
SCRIPTS: Final = {
    "Latin": ("bdfghkmprtvwz", "\u0323\u0331"),
    "Cyrillic": ("бвгджзклмнпрст", "\u0301"),
    "Greek": ("αβγδεζηθκλμν", ""),
    "Hebrew": ("אבגדהוזחטי", "\u05b0\u05b4\u05b8"),
    "Arabic": ("بتثجحخدذرز", "\u064e\u064f\u0651"),
    "Devanagari": ("कखगघचजटडतदनपबमयरलवसह", "\u093e\u093f\u0940\u0941\u0947\u094b\u094d\u0902"),
    "Bengali": ("কখগঘচজটডতদনপবমযরলসহ", "\u09be\u09bf\u09c0\u09c1\u09c7\u09cd"),
    "Tamil": ("கஙசஜஞடணதநபமயரலவ", "\u0bbe\u0bbf\u0bc0\u0bc1\u0bcd"),
    "Telugu": ("కఖగఘచజటడతదనపబమయరలవసహ", "\u0c3e\u0c3f\u0c40\u0c41\u0c4d"),
    "Malayalam": ("കഖഗഘചജടഡതദനപബമയരലവസഹ", "\u0d3e\u0d3f\u0d40\u0d41\u0d4d"),
    "Sinhala": ("කඛගඝචජටඩතදනපබමයරලවසහ", "\u0dcf\u0dd2\u0dd3\u0dca"),
    "Ethiopic": ("ሀለሐመሠረሰሸቀበተኀነ", ""),
    "Hangul": ("가나다라마바사아자차카타파하", ""),
    "Han": ("山川茶傘猫犬赤青大小木火水金", ""),
    "Kana": ("あいうえおかきくけこアイウエオ", ""),
    "Thai": ("กขคงจชดตทนบปผพมยรลวสหอ", "\u0e34\u0e35\u0e38\u0e48\u0e49"),
    "Lao": ("ກຂຄງຈຊຍດຕທນບປຜມຣລວສຫ", "\u0eb4\u0eb5\u0eb8\u0ec8"),
    "Khmer": ("កខគងចជដតទនបផពមយរលវសហ", "\u17b6\u17b7\u17b8\u17bb\u17d2"),
    "Burmese": ("ကခဂငစဇတဒနပဖဗမယရလဝသဟ", "\u102c\u102d\u102e\u102f\u103a"),
}
POINTED: Final = frozenset({"Hebrew", "Arabic"})  # their marks may be left out
UNSPACED: Final = frozenset({"Han", "Kana", "Thai", "Lao", "Khmer", "Burmese"})


def told_by(text: str, script: str) -> str:
    """What tells a word of the script from another."""
    return (
        text.translate(dict.fromkeys(map(ord, SCRIPTS[script][1]))) if script in POINTED else text
    )


@st.composite
def title_in(draw: st.DrawFn, script: str) -> list[str]:
    """The words of a title, each of two or three letters, with marks or without; no letter twice.

    So in a script without spaces too, what stands nowhere in the title is no part of it.
    """
    letters, marks = SCRIPTS[script]
    left = draw(st.permutations(letters))
    words = []
    for size in draw(st.lists(st.integers(2, 3), min_size=1, max_size=4)):
        word, left = left[:size], left[size:]
        if len(word) > 1:  # fewer letters may be left
            words.append("".join(letter + draw(st.sampled_from([*marks, ""])) for letter in word))
    return words

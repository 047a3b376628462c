from __future__ import annotations

import pytest

from streams.profiler.engine import nonsense


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("!!!!!!!!!!", "empty"),
        ("a" * 41 * 160, "endless"),
        ("\x00\x01\x02abc", "binary"),
        ("\ufffd\ufffd lamp", "binary"),
        ("the the the " * 100, "loop"),
    ],
)
def test_what_is_no_text_is_named(text: str, reason: str) -> None:
    assert nonsense(text, 160) == reason


@pytest.mark.parametrize(
    "text",
    [
        "white lantern; red lunch bag\nCurrent interests: paper chains",
        "Weiße Laterne; 紙の鎖; прекрасно 🎉",
        " ".join(f"Buys {colour} lanterns for the garden;" for colour in ("red", "blue") * 4),
    ],
)
def test_text_of_any_language_is_let_through(text: str) -> None:
    assert nonsense(text, 160) is None

"""Fixed word lists of the grounding check.

Words in these lists say nothing about an item, so a sentence may use them without evidence.
Every other word is a content word and must come from the events (architecture, Profiles). The
lists are English: a function word of another language counts as content, which makes the check
stricter there, never laxer. Liking may be told only of what was liked and disliking only of
what was disliked: "does not like lunch bags" must fail where lunch bags were bought.
"""

from __future__ import annotations

from typing import Final


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS: Final = _listed("""
    a an the this that these those some any all both each every either other others another such
    and or but nor as so than then too very quite rather more most much many few several
    of in on at by to from for with about into over under between among across through during
    after before since until up out off per via plus
    i me my you your he him his she her hers it its they them their theirs we us our who whom
    whose which what when where why how there here
    is are was were be been being am has have had having do does did done doing can could may
    might must will would shall should
    also just only even still often always usually mostly mainly generally frequently regularly
    sometimes occasionally recently lately currently now today again once twice etc
    s d ll re ve
    item items product products thing things kind kinds type types sort sorts variety various
    range user users customer customers shopper person include includes including example
    stable current right
    """)

LIKING_WORDS: Final = _listed("""
    like likes liked liking love loves loved loving enjoy enjoys enjoyed enjoying prefer prefers
    preferred preference preferences favour favours favor favors favourite favourites favorite
    favorites buy buys buying bought purchase purchases purchased purchasing choose chooses chose
    chosen choosing pick picks picked order orders ordered want wants wanted look looks looking
    browse browses browsed browsing view views viewed click clicks clicked come comes coming back
    keep keeps interest interests interested taste tastes tend tends toward towards drawn fond
    """)

DISLIKING_WORDS: Final = _listed("""
    not no never don doesn didn t like avoid avoids avoided avoiding dislike dislikes disliked
    cancel cancels cancelled canceled cancelling hide hides hid hidden reject rejects rejected
    return returns returned sent send sends back rate rates rated low poorly
    """)

# Sizes, counts and packaging: they make poor themes for an extractive sentence.
PACKING_WORDS: Final = _listed("""
    set sets pack packs pair pairs piece pieces pcs count ct oz ounce ounces ml fl lb kg g cm mm
    size small medium large mini jumbo xl new assorted asstd design designs box boxed colour
    colours color colors style
    """)

# They describe an item but do not name one, so they may not stand alone as a theme.
COLOUR_WORDS: Final = _listed("""
    red white blue pink black green cream ivory yellow orange purple silver gold grey gray brown
    vintage retro antique classic traditional pretty cute little big round
    """)

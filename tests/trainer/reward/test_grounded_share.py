"""Figures of written answers, with the arithmetic in the test."""

from __future__ import annotations

from models.profile.evidence import section_events
from models.schemas import Section
from tests.trainer.asked import asked
from trainer.reward.grounded_share import (
    Answered,
    Statement,
    Wording,
    grounded_share,
    judged,
    wording_of,
)

REQUEST = asked(
    stable=["Black record cover frame", "Set of 3 black flying ducks"], avoids=["Metal sign"]
)


def test_each_statement_is_judged_in_its_section() -> None:
    answer = " Record frame; flying ducks; flying pigs\nAvoids: Metal sign; ducks"

    assert judged(REQUEST, answer) == [
        Statement(Section.STABLE, "Record frame", True, Wording.OWN),
        Statement(Section.STABLE, "Flying ducks", True, Wording.PIECE),
        Statement(Section.STABLE, "Flying pigs", False, Wording.OWN),
        Statement(Section.AVOIDS, "Metal sign", True, Wording.TITLE),
        Statement(Section.AVOIDS, "Ducks", False, Wording.PIECE),
    ]


def test_a_repetition_counts_once() -> None:
    assert len(judged(REQUEST, " flying ducks; Flying ducks; ducks flying")) == 1


def test_a_piece_is_made_of_whole_words_side_by_side() -> None:
    events = section_events(REQUEST)[Section.STABLE]

    assert wording_of("black record cover FRAME", events) is Wording.TITLE
    assert wording_of("record cover", events) is Wording.PIECE
    assert wording_of("record frame", events) is Wording.OWN
    assert wording_of("cord cover", events) is Wording.OWN


def test_shares_are_means_over_users() -> None:
    other = REQUEST.model_copy(update={"user_id": "v"})
    silent = REQUEST.model_copy(update={"user_id": "w"})
    answers = [
        Answered(REQUEST, " flying ducks; flying pigs", 6, True),  # 1 of 2 passes
        Answered(REQUEST, " record cover", 4, True),  # 1 of 1: this user's mean is 3/4
        Answered(other, " pigs", 3, False),  # 0 of 1
        Answered(silent, "", 1, True),  # nothing said: in no share
    ]

    found = grounded_share(answers, resamples=100)

    assert (found.prompts, found.users, found.statements, found.passed) == (4, 2, 4, 2)
    assert found.share.mean == (3 / 4 + 0) / 2
    assert (found.titles, found.pieces) == (0.0, 2 / 4)
    assert (found.sections_asked, found.sections_answered) == (4 * 2, 2)
    assert (found.finished, found.tokens) == (3 / 4, 14 / 4)

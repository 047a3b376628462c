from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest

from models.fakes import FakeEncoder
from models.ports import Adapter, CanaryLine
from models.release.canary import TOLERANCE, adapter_shows, verdict
from tests.canaries import canary_of

LINES = (  # 10 and 5 tokens; (5 + 2.5) / 15 = .5 nats a token between adapter and base
    CanaryLine("Likes:", "ten tokens", logprob=-10.0, base_logprob=-15.0),
    CanaryLine("Now:", "five", logprob=-5.0, base_logprob=-7.5),
)
TOKENS = (10, 5)


def test_the_manifests_own_values_show_the_adapter() -> None:
    assert verdict(LINES, [-10.0, -5.0], TOKENS) is None


def test_rounding_of_another_precision_is_allowed() -> None:
    assert verdict(LINES, [-10.3, -4.8], TOKENS) is None  # (.3 + .2) / 15 = .033


def test_an_adapter_that_changes_much_may_be_measured_more_roughly() -> None:
    far = [replace(line, base_logprob=line.logprob * 4) for line in LINES]  # 3 nats a token apart
    assert verdict(far, [-11.4, -5.7], TOKENS) is None  # .14, of .15
    assert verdict(far, [-11.6, -5.8], TOKENS) is not None  # .16


def test_the_base_model_in_place_of_the_adapter_is_named() -> None:
    reason = verdict(LINES, [-15.0, -7.5], TOKENS)
    assert reason is not None
    assert "the base model answers" in reason
    assert "0.500 nats" in reason


def test_another_adapter_is_neither() -> None:
    reason = verdict(LINES, [-12.0, -6.0], TOKENS)  # .2 from the manifest's, .3 from the base's
    assert reason is not None
    assert "another model answers" in reason


def test_errors_of_opposite_sign_do_not_cancel() -> None:
    assert verdict(LINES, [-8.0, -7.0], TOKENS) is not None


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_no_number_shows_nothing(value: float) -> None:
    reason = verdict(LINES, [value, -5.0], TOKENS)
    assert reason is not None
    assert "finite" in reason


def test_a_canary_that_cannot_tell_adapter_and_base_apart_shows_nothing() -> None:
    near = [replace(line, base_logprob=line.logprob - TOLERANCE) for line in LINES]
    reason = verdict(near, [-10.0, -5.0], TOKENS)
    assert reason is not None
    assert "cannot tell" in reason


def test_without_a_canary_nothing_is_shown() -> None:
    assert verdict((), (), ()) is not None


def test_a_canary_made_on_an_engine_is_found_there_again_and_not_where_the_adapter_is_off(
    tmp_path: Path,
) -> None:
    texts = [("Likes:", " white hanging lantern"), ("Now:", " lunch bag; paper chain")]

    async def made_and_judged() -> tuple[str | None, str | None]:
        encoder = FakeEncoder()
        await encoder.prepare(Adapter("taste-1", tmp_path))
        lines = await canary_of(encoder, texts, "taste-1")
        assert [(line.prompt, line.text) for line in lines] == texts
        well = await adapter_shows(encoder, lines, "taste-1")
        encoder.deaf = True
        return well, await adapter_shows(encoder, lines, "taste-1")

    well, ill = asyncio.run(made_and_judged())
    assert well is None
    assert ill is not None
    assert "base model" in ill

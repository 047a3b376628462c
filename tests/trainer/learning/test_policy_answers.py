"""Kept answers and the canary, on a tiny random model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.settings import ProfileSettings
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.learning.policy import Policy, PolicyOptions
from trainer.learning.policy_answers import canary_lines, served_otherwise, write_answers

SETTINGS = PolicyOptions(rank=2, alpha=4, max_prompt_tokens=64, max_new_tokens=8)
PROMPTS = ["Now: red mug\nNow:", "Stable:", "Now: red mug\nNow:"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    made = Policy.load(tiny_llama(tmp_path_factory.mktemp("tiny")), SETTINGS)
    with torch.no_grad():
        for weights in made.parameters():
            weights.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    return made


def test_kept_answers_are_not_made_again(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "run" / "answers.jsonl"
    first = write_answers(policy, PROMPTS[:2], kept)
    with kept.open("ab") as file:
        file.write(b'{"prompt": "cut sh')  # a kill while writing
    monkeypatch.setattr(policy, "sample", None)

    again = write_answers(policy, PROMPTS, kept)

    assert again == [first[0], first[1], first[0]]
    assert all(answer.tokens <= SETTINGS.max_new_tokens for answer in again)


def test_a_line_cut_short_does_not_spoil_the_one_after_it(policy: Policy, tmp_path: Path) -> None:
    kept = tmp_path / "answers.jsonl"
    write_answers(policy, PROMPTS[:1], kept)
    with kept.open("ab") as file:
        file.write(b'{"prompt": "cut sh')

    written = write_answers(policy, PROMPTS[:2], kept)

    assert write_answers(policy, PROMPTS[:2], kept) == written


def test_progress_counts_what_was_kept(policy: Policy, tmp_path: Path) -> None:
    kept, told = tmp_path / "answers.jsonl", []
    write_answers(policy, PROMPTS[:1], kept, told.append)

    write_answers(policy, PROMPTS, kept, told.append)

    assert told == [0, 1, 2, 3]  # the first prompt comes twice


def test_the_canary_tells_adapter_from_base(policy: Policy) -> None:
    (line,) = canary_lines(policy, [("Now:", " mug")])

    ids = policy.completion_tokens(["Now:"], [" mug"])
    with torch.no_grad():
        own = float(policy.token_log_probs(ids)[0][:-1].sum())  # without the end of turn
        with policy.reference():
            base = float(policy.token_log_probs(ids)[0][:-1].sum())
    assert (line.prompt, line.text) == ("Now:", " mug")
    assert line.logprob == pytest.approx(own, abs=1e-4)
    assert line.base_logprob == pytest.approx(base, abs=1e-4)
    assert line.logprob != pytest.approx(line.base_logprob, abs=0.01)


def test_greedy_answers_are_as_served_unless_profiles_are_sampled() -> None:
    assert served_otherwise(ProfileSettings()) is None
    assert served_otherwise(ProfileSettings(temperature=0.5, repetition_penalty=1.2)) == (
        "profiles are served with profile.temperature 0.5 and profile.repetition_penalty 1.2, and "
        "written for training and measuring with profile.temperature 0 and "
        "profile.repetition_penalty 1: what was measured may not be what is served"
    )

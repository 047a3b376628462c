"""The policy's likeliest answers, kept in a file as they are made, and a release's canary."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import orjson
import torch

from models.engines.model_files import ModelSource, files_hash
from models.identity import digest
from models.ports import CanaryLine
from models.settings import ProfileSettings
from trainer.learning.policy import Policy, Rollout
from trainer.reward.rewarder import Answer

AT_ONCE: Final = 64  # prompts between two lines of progress


def write_answers(
    policy: Policy,
    prompts: Sequence[str],
    kept: Path,
    on_answers: Callable[[int], None] = lambda _done: None,
) -> list[Answer]:
    """Greedy answers to `prompts`. Those that `kept` (JSON lines) holds are not made again.

    `kept` must be of this policy alone. `on_answers(done)` is told at the beginning and now and
    then how many of the prompts have their answer.
    """
    known = _read(kept)
    kept.parent.mkdir(parents=True, exist_ok=True)
    names = [digest(prompt) for prompt in prompts]
    missing = [prompt for prompt in dict.fromkeys(prompts) if digest(prompt) not in known]
    on_answers(sum(name in known for name in names))
    for start in range(0, len(missing), AT_ONCE):
        part = missing[start : start + AT_ONCE]
        written = policy.sample(part, 1, temperature=0.0, seed=0)
        with kept.open("ab") as file:
            for prompt, (rollout,) in zip(part, written, strict=True):
                answer = Answer(rollout.text, len(rollout.completion_ids), rollout.finished)
                known[digest(prompt)] = answer
                file.write(orjson.dumps({"prompt": digest(prompt), **asdict(answer)}) + b"\n")
        on_answers(sum(name in known for name in names))
    return [known[name] for name in names]


def served_otherwise(profile: ProfileSettings) -> str | None:
    """How served profiles are sampled, for people, where that is not how they are written here."""
    here = ProfileSettings(temperature=0.0, repetition_penalty=1.0)
    names = [
        name
        for name in ("temperature", "repetition_penalty")
        if getattr(profile, name) != getattr(here, name)
    ]
    if not names:
        return None
    served, asked = (
        " and ".join(f"profile.{name} {getattr(one, name):g}" for name in names)
        for one in (profile, here)
    )
    return (
        f"profiles are served with {served}, and written for training and measuring with {asked}: "
        "what was measured may not be what is served"
    )


def answers_file(
    folder: Path, base: ModelSource, adapter: Path | None, max_new_tokens: int
) -> Path:
    """Where a policy's answers are kept: other weights and other lengths have another file."""
    weights = files_hash(base), files_hash(adapter) if adapter else ""
    return folder / f"answers-{digest(*weights, max_new_tokens)[:16]}.jsonl"


def _read(kept: Path) -> dict[str, Answer]:
    """Prompt's digest → answer. A line that a kill cut short is taken off: more are appended."""
    text = kept.read_bytes() if kept.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        os.truncate(kept, len(whole))
    records = map(orjson.loads, whole.splitlines())
    return {record.pop("prompt"): Answer(**record) for record in records}


@torch.no_grad()
def canary_lines(policy: Policy, answers: Sequence[tuple[str, str]]) -> tuple[CanaryLine, ...]:
    """What a manifest says of its adapter: (prompt, answer) pairs and how likely they are.

    Best are answers of the adapter itself. `policy` must be loaded from the adapter's folder, so
    that its weights are those that will serve, without a `reference`.
    """
    texts = [
        Rollout(policy.prompt_ids(prompt), policy.prompt_ids(text), text, finished=False)
        for prompt, text in answers
    ]
    own = [float(policy.log_probs([one])) for one in texts]
    with policy.reference():
        base = [float(policy.log_probs([one])) for one in texts]
    return tuple(
        CanaryLine(prompt, text, mine, plain)
        for (prompt, text), mine, plain in zip(answers, own, base, strict=True)
    )

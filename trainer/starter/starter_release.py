"""Train → measure → write: the starter release from its material."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from models.engines.model_files import base_model_hash, language_model
from models.ports import Release
from models.profile.prompts import PROMPT_VERSION, render
from models.release.files import MANIFEST
from models.release.starter import ADAPTER_FILES
from models.release.store import manifest, with_files
from models.schemas import to_rfc3339
from trainer.learning.policy import Policy, policy_options
from trainer.learning.policy_answers import canary_lines, write_answers
from trainer.learning.warm_start import WarmStart, train
from trainer.reward.grounded_share import Answered, GroundedShare, grounded_share, judged
from trainer.reward.rewarder import Answer
from trainer.starter.card import model_card
from trainer.starter.material import SEED, Material

STARTER_RELEASE: Final = "starter-1"
ADAPTER: Final = "adapter"  # its folder in a release, and in the folder of the run
CANARIES: Final = 4
ANSWERS: Final = "answers.jsonl"  # every measured prompt with both answers and their verdicts

logger = logging.getLogger(__name__)


def make_starter(material: Material, work: Path, out: Path) -> Release:
    """Make the release in `out`, with `work` for checkpoint, logs and answers."""
    trained = _train(material, work)
    options = policy_options(material.settings)
    policy = Policy.load(language_model(material.settings), options, adapter=work / ADAPTER)
    prompts = [render(request) for request in material.measured]
    after = write_answers(policy, prompts, work / "after.jsonl", _progress("after", prompts))
    with policy.reference():
        before = write_answers(policy, prompts, work / "before.jsonl", _progress("before", prompts))
    _keep_answers(material, before, after, work / ANSWERS)
    figures = _figures(material, trained, before, after)
    canary = canary_lines(
        policy, [(p, a.text) for p, a in zip(prompts, after, strict=True)][:CANARIES]
    )
    release = _release(material, work / ADAPTER, figures, canary)
    _write(release, work / ADAPTER, out)
    return release


def _train(material: Material, work: Path) -> WarmStart:
    settings, options = material.settings.train, policy_options(material.settings)
    policy = Policy.load(language_model(material.settings), options, seed=SEED)
    trained = train(
        policy,
        material.training,
        settings.warm_start,
        work,
        validation=material.validation,
        on_step=lambda step, loss: logger.info(
            "step %d of %d: loss %.3f", step, settings.warm_start.steps, loss
        ),
    )
    policy.save(work / ADAPTER)
    return trained


def _progress(what: str, prompts: Sequence[str]) -> Callable[[int], None]:
    return lambda done: logger.info("answers %s training: %d of %d", what, done, len(prompts))


def _keep_answers(
    material: Material, before: Sequence[Answer], after: Sequence[Answer], path: Path
) -> None:
    """For people to read: per prompt what was asked, and both answers taken apart."""
    with path.open("wb") as file:
        for request, plain, learned in zip(material.measured, before, after, strict=True):
            line = {
                "user": request.user_id,
                "prompt": render(request),
                "before": [one._asdict() for one in judged(request, plain.text)],
                "after": [one._asdict() for one in judged(request, learned.text)],
            }
            file.write(orjson.dumps(line) + b"\n")


def _figures(
    material: Material, trained: WarmStart, before: Sequence[Answer], after: Sequence[Answer]
) -> dict[str, Any]:
    def share(answers: Sequence[Answer]) -> GroundedShare:
        pairs = zip(material.measured, answers, strict=True)
        return grounded_share([Answered(request, *_fields(answer)) for request, answer in pairs])

    return {
        "steps": trained.steps,
        "examples": trained.examples,
        "training_users": material.training_users,
        "last_loss": round(trained.loss, 4),
        "grounding_before": share(before).to_json(),
        "grounding_after": share(after).to_json(),
    }


def _fields(answer: Answer) -> tuple[str, int, bool]:
    return answer.text, answer.tokens, answer.finished


def _release(material: Material, adapter: Path, figures: dict[str, Any], canary: Any) -> Release:
    settings, borders = material.settings, material.corpus.data_range.borders
    release = Release(
        id=STARTER_RELEASE,
        base_model=settings.profile.model,
        adapter=ADAPTER,
        embedder=settings.embedder.model,
        prompt_version=PROMPT_VERSION,
        window_spec=settings.windows.model_dump(mode="json"),
        # Of the data, not of the run: the same command makes the same manifest.
        created_at=to_rfc3339(borders.end),
        metrics=figures,
        # `source`: the times are of these data, not of the log beside which it will serve
        # (trainer.data.replay_sampling.seen_by).
        data_range={
            "source": "data/sample",
            "from": to_rfc3339(borders.first),
            "until": to_rfc3339(borders.train_end),
        },
        base_model_hash=base_model_hash(settings),
        canary=canary,
        kind="starter",
    )
    return with_files(release, {f"{ADAPTER}/{name}": adapter / name for name in ADAPTER_FILES})


def _write(release: Release, adapter: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in ADAPTER_FILES:
        shutil.copyfile(adapter / name, out / name)
    (out / MANIFEST).write_bytes(manifest(release) + b"\n")
    (out / "README.md").write_text(model_card(release), encoding="utf-8")

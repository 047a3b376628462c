"""The model card of the starter release, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.ports import Release
from trainer.data.held_out import ONE_IN
from trainer.starter.material import SEED, TRAIN

_CARD = """\
# {id}: starter release of Palate

A LoRA adapter (rank {rank}, all linear layers, bfloat16) for `{base}` that writes the lines of a
profile from a list of items: `Stable: Flying ducks; Vinyl record frame`. It answers prompts
`{prompt_version}` and no others. `manifest.json` is the release that `palate up` publishes at its
first start where the settings name the same models and windows.

- **Licence.** Apache-2.0, as Palate and the base model (SmolLM2-135M-Instruct, Hugging Face).
- **Data.** `data/sample`, a part of *Online Retail II* (UCI Machine Learning Repository; Chen,
  Sain and Guo 2012, doi:10.1057/dbm.2012.17), CC BY 4.0; see `data/sample/ATTRIBUTION.md`.
  English titles of one British gift shop, 2009 to 2011. Only events before {until} were learned
  from.
- **Held out.** Customers for whom the first 8 hexadecimal digits of sha256(customer id) are a
  multiple of {one_in}. Nothing of them was learned, all figures below are of them, and the demo
  shows customers from among them.
- **Training.** `python -m trainer.starter`, seed {seed}: {steps} optimiser steps of {batch}
  examples (AdamW, learning rate {rate:g}, cosine) out of {examples} examples of {users} customers.
  The answers learned are not people's: `trainer/data/target_answers.py` cuts them from the
  titles, by how rare words are.

## Figures

{prompts} prompts of {measured_users} held-out customers, greedy. *Passed*: statements that the
grounding check bears out, mean over customers with 95 % bootstrap interval. *Copied*: statements
that are a whole title, or neighbouring words of one.

| | statements | passed | whole title | piece of a title | sections answered | tokens |
|---|---|---|---|---|---|---|
{rows}

What the check does not see, and how 200 statements fared under a reader's eye, is in
`docs/results/grounding.md`.

## Limits

Trained on short titles of household goods; on long titles of other trades it has not been
measured. It names things and sums up little: it finds words, not reasons. Statements that the
check refuses are replaced by sentences built from the events, so a profile holds none of them.
"""


def model_card(release: Release) -> str:
    """Markdown."""
    figures = release.metrics
    warm = TRAIN.warm_start
    after = figures["grounding_after"]
    return _CARD.format(
        id=release.id,
        rank=TRAIN.policy.rank,
        base=release.base_model,
        prompt_version=release.prompt_version,
        until=release.data_range["until"][:10],
        one_in=ONE_IN,
        seed=SEED,
        steps=figures["steps"],
        batch=warm.batch,
        rate=warm.learning_rate,
        examples=figures["examples"],
        users=figures["training_users"],
        prompts=after["prompts"],
        measured_users=after["users"],
        rows="\n".join(
            _row(name, figures[f"grounding_{key}"])
            for name, key in (("base model", "before"), (release.id, "after"))
        ),
    )


def _row(name: str, figures: Mapping[str, Any]) -> str:
    mean, low, high = figures["share"]
    return (
        f"| {name} | {figures['statements']} | **{mean:.3f}** ({low:.3f} to {high:.3f}) "
        f"| {figures['titles']:.3f} | {figures['pieces']:.3f} "
        f"| {figures['sections_answered']} of {figures['sections_asked']} "
        f"| {figures['tokens']:.0f} |"
    )

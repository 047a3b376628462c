"""Settings of the trainer, one group per stage; `models.settings.Settings.train` holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SettingGroup(BaseModel):
    """Base of the setting groups: immutable, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SessionSettings(SettingGroup):
    """How the log becomes sessions: a prompt's moment and what the user did next."""

    seed: int = Field(0, description="Seed of every choice of users and sessions.")
    gap_hours: float = Field(
        1.0, ge=0, description="Positive events this close are one moment (basket, visit)."
    )
    min_history: int = Field(3, ge=1, description="Positive events before the first session.")
    horizon: int = Field(10, ge=1, description="Most distinct next items of a session.")
    per_user: int = Field(4, ge=1, description="Most sessions kept of one user, newest first.")
    validation: float = Field(
        0.1, gt=0, lt=0.5, description="Share of events, by time, before test."
    )
    test: float = Field(0.1, gt=0, lt=0.5, description="Share of events, by time, at the end.")
    replay: float = Field(
        1.0, ge=0, description="Older sessions trained on again, per new one, in a refresh."
    )
    min_new_events: int = Field(
        1_000, ge=0, description="Fewer new events since the last release: nothing is trained."
    )


class PolicySettings(SettingGroup):
    """The language model's adapter."""

    rank: int = Field(8, ge=1, description="LoRA rank, on all linear layers.")
    alpha: int = Field(16, ge=1, description="LoRA alpha.")
    max_prompt_tokens: int = Field(768, ge=64, description="Longer prompts are left out.")


class WarmStartSettings(SettingGroup):
    """Supervised training on grounded profiles made from histories."""

    learning_rate: float = Field(1e-3, gt=0, description="Of AdamW.")
    batch: int = Field(8, ge=1, description="Sessions per optimiser step.")
    micro_batch: int = Field(4, ge=1, description="Sessions per forward pass.")
    steps: int = Field(300, ge=0, description="Optimiser steps; 0 leaves the stage out.")
    decay: int = Field(
        300, ge=1, description="Steps in which the learning rate falls to a tenth, by a cosine."
    )
    checkpoint_every: int = Field(20, ge=1, description="Steps between checkpoints.")
    seed: int = Field(0, description="Seed of order and initial weights.")


class RlsoSettings(SettingGroup):
    """Reinforcement learning on ranking quality (methods §8)."""

    objective: Literal["rebel", "rloo"] = Field("rebel", description="Loss.")
    samples: int = Field(8, ge=2, description="Profiles per prompt (K).")
    prompts: int = Field(8, ge=1, description="Prompts per round of rollouts.")
    epochs: int = Field(1, ge=1, description="Passes over each round of rollouts.")
    batch: int = Field(8, ge=1, description="Prompts per optimiser step.")
    micro_batch: int = Field(1, ge=1, description="Prompts per forward pass.")
    rounds: int = Field(30, ge=0, description="Rounds of rollouts; 0 leaves the stage out.")
    learning_rate: float = Field(3e-4, gt=0, description="Of AdamW.")
    eta: float = Field(
        10.0, gt=0, description="REBEL's η: log-ratios follow reward differences times this."
    )
    kl: float = Field(0.01, ge=0, description="Weight of the KL term to the reference.")
    temperature: float = Field(0.8, gt=0, description="Of the rollouts.")
    similarity: float = Field(0.1, ge=0, description="Weight of the log-lift reward.")
    similarity_temperature: float = Field(
        0.05, gt=0, description="τ of the softmax over cosine similarities to all items."
    )
    grounding: float = Field(0.05, ge=0, description="Weight of the grounding reward.")
    length: float = Field(0.05, ge=0, description="Weight of the length plateau.")
    min_tokens: int = Field(8, ge=0, description="Shorter answers get no length reward.")
    max_tokens: int = Field(80, ge=1, description="Nor do longer ones, or those cut off.")
    clip: float = Field(0.2, gt=0, description="RLOO: how far a ratio may leave 1.")
    kl_estimator: Literal["k3", "plain"] = Field("k3", description="Of the KL term, per token.")
    gradient_norm: float = Field(1.0, gt=0, description="Larger gradients are scaled to this.")
    validate_every: int = Field(10, ge=1, description="Rounds between validations.")
    validation_users: int = Field(256, ge=0, description="Held-out users of a validation.")
    checkpoint_every: int = Field(1, ge=1, description="Rounds between checkpoints.")
    vllm_url: str = Field(
        "", description="vLLM server here (http://…/v1) that makes the rollouts; empty: in-process."
    )
    seed: int = Field(0, description="Seed of prompts, order and sampling.")


class ContrastiveSettings(SettingGroup):
    """InfoNCE between profiles and next items (methods §7)."""

    learning_rate: float = Field(5e-5, gt=0, description="Of AdamW.")
    batch: int = Field(64, ge=2, description="Pairs per optimiser step; the others are negatives.")
    steps: int = Field(120, ge=0, description="Optimiser steps; 0 leaves the stage out.")
    users: int = Field(
        500, ge=2, description="Most users whose profiles are written to learn from."
    )
    validation_users: int = Field(
        100, ge=0, description="Held-out users of a validation; with 0 the last step is kept."
    )
    temperature: float = Field(0.05, gt=0, description="τ of InfoNCE.")
    logq: bool = Field(True, description="Correct for how often an item is a negative.")
    symmetric: bool = Field(False, description="Also item → profile.")
    hard_negatives: int = Field(0, ge=0, description="Filtered hard negatives per pair.")
    hard_below: float = Field(
        0.95, description="Kept only below this share of the positive's score."
    )
    matryoshka: tuple[int, ...] = Field((), description="Further dimensions trained, e.g. 128.")
    warmup: float = Field(0.1, ge=0, le=1, description="Share of steps in which the rate rises.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    gradient_norm: float = Field(1.0, gt=0, description="Larger gradients are scaled to this.")
    history_items: int = Field(
        10, ge=1, description="Newest items in the text of a raw history (NoProfile)."
    )
    max_tokens: int = Field(256, ge=8, description="Longer texts are cut at their end.")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the forward pass; weights stay float32."
    )
    validate_every: int = Field(30, ge=1, description="Optimiser steps between validations.")
    checkpoint_every: int = Field(50, ge=1, description="Optimiser steps between checkpoints.")
    seed: int = Field(0, description="Seed of order.")


class SasrecSettings(SettingGroup):
    """The sequence model that profiles are compared with (SASRec, full softmax)."""

    width: int = Field(128, ge=8, description="Of item vectors and hidden states.")
    layers: int = Field(2, ge=1, description="Transformer blocks.")
    heads: int = Field(2, ge=1, description="Attention heads; divides the width.")
    dropout: float = Field(0.4, ge=0, lt=1, description="Of embeddings, attention and blocks.")
    max_length: int = Field(50, ge=2, description="Newest items that are looked at.")
    batch: int = Field(128, ge=1, description="Sequences per optimiser step.")
    learning_rate: float = Field(
        1e-3, gt=0, description="Of AdamW at first; falls to 0 over the epochs."
    )
    epochs: int = Field(40, ge=1, description="Most passes over the sequences.")
    patience: int = Field(8, ge=1, description="Epochs without a better validation: stop.")
    products: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of the products with all items while training."
    )
    seed: int = Field(0, description="Seed of weights, order and dropout.")


class GateSettings(SettingGroup):
    """When a release may serve."""

    metric: str = Field("ndcg@10", description="Metric compared by the paired bootstrap.")
    margin: float = Field(
        0.004, ge=0, description="Lower bound of the difference: above minus this."
    )
    anchor_margin: float = Field(0.006, ge=0, description="The same against the anchored baseline.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the one-sided bound.")
    resamples: int = Field(2_000, ge=100, description="Bootstrap resamples over users.")
    users: int = Field(1_000, ge=1, description="Most users for whom compared releases write.")
    min_users: int = Field(100, ge=1, description="Fewer users in the gate's window: not promoted.")
    shuffled_loss: float = Field(
        0.0,
        description="What another user's profile must cost, by its lower bound: more than this.",
    )
    grounding_drop: float = Field(0.02, ge=0, description="Most that grounding may fall.")
    length_change: float = Field(0.5, ge=0, description="Most relative change of profile length.")
    copied_rise: float = Field(
        0.15, ge=0, description="Most that the share of titles copied word for word may rise."
    )
    repeated_rise: float = Field(
        0.1, ge=0, description="Most that the share of repeated phrases may rise."
    )
    commonest_rise: float = Field(
        0.1, ge=0, description="Most that the share of the most common statement may rise."
    )
    entropy_drop: float = Field(
        0.2, ge=0, description="Most relative fall of the entropy of profiles' words."
    )
    seed: int = Field(0, description="Seed of the bootstrap and of shuffled profiles.")


class EvaluationSettings(SettingGroup):
    """How systems are compared."""

    ks: tuple[int, ...] = Field((5, 10, 20), description="Cut-offs of recall and NDCG.")
    against: tuple[str, ...] = Field(
        ("star",), description="Systems whose difference to each other one is told, paired."
    )
    resamples: int = Field(1_000, ge=100, description="Bootstrap resamples over users.")
    users: int = Field(400, ge=1, description="Most users where systems write profiles.")
    mask_seen: bool | None = Field(
        None, description="Leave out items had before; unset: in leave-one-out, as papers do."
    )
    seed: int = Field(0, description="Seed of ties, sampling of users and bootstrap.")


def metric_names(ks: Sequence[int]) -> tuple[str, ...]:
    """Names of the metrics of one session, with these cut-offs."""
    return (*(f"{kind}@{k}" for kind in ("recall", "ndcg") for k in ks), "mrr")


class TrainSettings(SettingGroup):
    """`palate train`: RLSO and CL on the event log."""

    rounds: int = Field(1, ge=1, description="Alternations of CL and RLSO.")
    passes: float = Field(
        10.0, gt=0, description="Passes over the sessions, within each stage's steps or rounds."
    )
    dir: Path | None = Field(None, description="Folder of runs; default data_dir/training.")
    metrics_file: Path | None = Field(
        None, description="Metrics for a textfile collector; default dir/metrics.prom."
    )
    pushgateway: str = Field("", description="host:port of a Pushgateway; empty: none.")
    sessions: SessionSettings = SessionSettings()
    policy: PolicySettings = PolicySettings()
    warm_start: WarmStartSettings = WarmStartSettings()
    rlso: RlsoSettings = RlsoSettings()
    contrastive: ContrastiveSettings = ContrastiveSettings()
    sasrec: SasrecSettings = SasrecSettings()
    gate: GateSettings = GateSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _metric_is_measured(self) -> TrainSettings:
        measured = metric_names(self.evaluation.ks)
        if self.gate.metric not in measured:
            raise ValueError(
                f"train.gate.metric is {self.gate.metric!r}, and train.evaluation.ks measures "
                f"{', '.join(measured)}; name one of these or add the cut-off"
            )
        return self

"""Names of what a run learns with and of what it is judged by.

With the same ones, the same data gives the same release and the same verdict.
"""

from __future__ import annotations

from typing import Final

from models.engines.model_files import ModelSource, files_hash
from models.identity import digest
from models.settings import Settings

_GROUPS: Final = {"rounds", "passes", "sessions", "policy", "warm_start", "rlso", "contrastive"}
# Within them, what moves no weight: when to train, and where rollouts are written.
_NOT_LEARNED_WITH: Final = {"sessions": {"min_new_events"}, "rlso": {"vllm_url"}}
# What the gate ranks by: not how often the tracker looks, and in what portions.
_NOT_RANKED_BY: Final = {"interval_s", "tick_s", "batch", "refresh_s", "exact_up_to"}
_COUNTED_BY: Final = {
    "cooccurrence_neighbours",
    "pair_half_life_days",
    "pair_support",
    "popularity_half_life_days",
}


def learning_key(settings: Settings, model_hash: str, embedder: ModelSource) -> str:
    """Of the models and of the settings that learning reads.

    How a run is judged, told and scheduled is not in it: that may change while a run is cut
    short. `model_hash` as in models.release.compatibility.
    """
    train = settings.train
    return digest(
        train.model_dump(mode="json", include=_GROUPS, exclude=_NOT_LEARNED_WITH),
        [train.gate.metric, train.evaluation.seed],  # by these CL chooses the step that it keeps
        settings.windows.model_dump(mode="json"),
        [settings.ranking.exclude_seen, settings.embedder.description_chars],
        [settings.profile.model, model_hash, files_hash(embedder)],
        [settings.profile.max_new_tokens, settings.profile.max_tokens],
    )


def judging_key(settings: Settings) -> str:
    """Of the settings by which the gate measures and judges, beside those in `learning_key`."""
    return digest(
        settings.train.gate.model_dump(mode="json"),
        settings.train.evaluation.ks,
        settings.ranking.model_dump(mode="json", exclude=_NOT_RANKED_BY),
        settings.index.model_dump(mode="json", include=_COUNTED_BY),
    )

"""The baselines, built on a Context; named in trainer/evaluation/registry.py."""

from __future__ import annotations

from models.settings import RankingSettings
from trainer.baselines.counted import (
    HadBeforeSystem,
    PopularitySystem,
    RandomSystem,
    users_per_item,
)
from trainer.baselines.training_free import (
    COOCCURRENCE,
    HISTORY_TEXT,
    LAST_ITEM_TEXT,
    STAR,
    RankingSystem,
)
from trainer.evaluation.context import Context
from trainer.learning.profile_systems import HybridSystem


def random_order(context: Context) -> RandomSystem:
    """A seeded random order."""
    return RandomSystem(len(context.corpus.item_ids), context.settings.train.evaluation.seed)


def popularity(context: Context) -> PopularitySystem:
    """Users per item over all time before the test."""
    return PopularitySystem("popularity", users_per_item(context.corpus))


def recent_popularity(context: Context) -> PopularitySystem:
    """Users per item, halved with the half-life of the shipped popularity prior."""
    half_life = context.settings.index.popularity_half_life_days
    return PopularitySystem("recent-popularity", users_per_item(context.corpus, half_life))


def had_before(context: Context) -> HadBeforeSystem:
    """The user's own items again."""
    return HadBeforeSystem(context.corpus, context.settings.index.pair_half_life_days)


def last_item_text(context: Context) -> RankingSystem:
    """Cosine to the text of the last item."""
    return _ranking("last-item-text", context, LAST_ITEM_TEXT)


def history_text(context: Context) -> RankingSystem:
    """Cosine to the texts of the history, weights 0.7^age."""
    return _ranking("history-text", context, HISTORY_TEXT)


def cooccurrence(context: Context) -> RankingSystem:
    """Co-occurrence with the history, weights 0.7^age."""
    return _ranking("cooccurrence", context, COOCCURRENCE)


def star(context: Context) -> RankingSystem:
    """Text / 3 + co-occurrence: the training-free scorer to beat."""
    return _ranking("star", context, STAR)


def star_had_before(context: Context) -> HybridSystem:
    """Both in equal parts: the bar where people buy again."""
    first, second = star(context), had_before(context)
    return HybridSystem("star-had-before", first, second, weights={0: 0.5})


def _ranking(name: str, context: Context, settings: RankingSettings) -> RankingSystem:
    """Ages count moments as in service; positions where times are no finer than days."""
    corpus = context.corpus
    return RankingSystem(
        name,
        context.catalogue,
        context.neighbours,
        settings,
        corpus.spec,
        by_moment=corpus.protocol == "temporal",
    )

"""A training run with real, tiny models on a small log; as a process too, which can be killed."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from models.engines.embedder import SentenceEmbedder
from models.engines.model_files import embedder_model, language_model
from models.engines.threads import wait_without_spinning
from models.ports import InForce, Release
from models.release.store import BASE_RELEASE, FolderReleaseStore
from models.schemas import Interaction, Item
from models.settings import Settings, load_settings
from streams.codec import partition_for
from streams.event_log import SegmentLog
from tests.streams.logged import record, record_items, record_of
from tests.trainer.learning.tiny_embedder import tiny_embedder
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.gate.release_evaluator import EvaluationProgress
from trainer.pipeline.candidate import TrainingTools
from trainer.pipeline.outcome import RunOutcome
from trainer.pipeline.run import run

START_MS, DAY_MS = 1_300_000_000_000, 86_400_000
THEMES = ("tea cup", "cat mug", "lace ribbon", "felt bird", "soap dish")
SMALL = {
    "sessions": {"min_history": 2, "min_new_events": 10, "validation": 0.2, "test": 0.2},
    "policy": {"max_prompt_tokens": 1_600, "rank": 2},
    "warm_start": {"steps": 2, "batch": 2, "micro_batch": 2, "checkpoint_every": 1},
    "contrastive": {"steps": 2, "users": 6, "validation_users": 4, "batch": 4},
    "rlso": {"rounds": 1, "samples": 2, "prompts": 2, "batch": 2, "validation_users": 4},
    "gate": {"users": 6, "min_users": 2, "resamples": 100},
}
# The warm start alone, and a gate that lets everything pass: for what happens around learning.
QUICK = SMALL | {
    "contrastive": {"steps": 0},
    "rlso": {"rounds": 0},
    "gate": {
        **{"users": 4, "min_users": 1, "resamples": 100, "margin": 1.0, "anchor_margin": 1.0},
        **{"shuffled_loss": -1.0, "grounding_drop": 1.0, "length_change": 100.0},
        **{"copied_rise": 1.0, "repeated_rise": 1.0, "commonest_rise": 1.0, "entropy_drop": 1.0},
    },
}


def tiny_pair(folder: Path) -> tuple[Path, Path]:
    """Language model and embedder."""
    words = {*" ".join(THEMES).split(), "number", *map(str, range(24))}
    return (
        tiny_llama(folder / "llama", positions=2_048),
        tiny_embedder(folder / "embedder", sorted(words)),
    )


def fill(
    settings: Settings,
    users: int = 12,
    days: int = 20,
    unknown_from: int = 99,
    first_day: int = 0,
) -> None:
    """Every user buys one item of their theme a day, in the end of none in the catalogue."""
    log = SegmentLog(settings.log_dir)
    items = [
        Item(item_id=f"{theme} {n}", title=f"{theme} number {n}")
        for theme in THEMES
        for n in range(24)
    ]
    record_items(log, settings, items)
    bought = defaultdict(list)
    for day in range(first_day, first_day + days):
        for user in range(users):
            name, theme = f"user-{user}", THEMES[user % len(THEMES)]
            bought[partition_for(name.encode(), settings.kafka.partitions)].append(
                Interaction(
                    event_id=f"{user}-{day}",
                    user_id=name,
                    item_id=f"{theme} {(user + day) % 24}" if day < unknown_from else "gone",
                    type="purchase",
                    timestamp=START_MS + day * DAY_MS + user * 1000,
                )
            )
    for partition, events in bought.items():
        after = log.next_offset("interactions", partition)
        rows = [
            record_of("interactions", partition, after + n, event, event.timestamp)
            for n, event in enumerate(events)
        ]
        record(log, settings, rows)


def run_once(
    settings: Settings,
    advance: EvaluationProgress,
    promote: Callable[[Release], None] | None = None,
    serving: str = BASE_RELEASE,
) -> RunOutcome:
    """`trainer.pipeline.run.run` with the adapters that `palate train` gives it."""
    tools = TrainingTools(
        releases=FolderReleaseStore(settings.releases_dir),
        model=language_model(settings),
        embedder=embedder_model(settings),
        open_embedder=lambda source: SentenceEmbedder(source, settings.embedder),
        advance=advance,
        promote=(lambda release, _instead_of: promote(release)) if promote else None,
    )
    return run(settings, tools, InForce(serving))


if __name__ == "__main__":  # with the settings of the environment; says how far it is
    wait_without_spinning()
    run_once(load_settings(), lambda *progress: sys.stderr.write(f"{progress}\n"))

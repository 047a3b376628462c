"""`python -m trainer.learning`: the stages of a training on a folder of data, without a release.

Warm start (unless --start brings an adapter), then CL and RLSO by turns, as `palate train` does
them; settings come from the usual places, and a stage with 0 steps or rounds is left out. The
same command goes on where a killed run was. What was learned stands in OUT/learned, to be
measured with `palate evaluate --system profile:OUT/learned`.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

from models.durable import making
from models.engines.embedder import SentenceEmbedder
from models.engines.model_files import embedder_model, language_model
from models.engines.threads import wait_without_spinning
from models.settings import Settings, load_settings
from trainer.data.corpus import Corpus
from trainer.learning.profile_builders import Learned as Found
from trainer.learning.stages import Models, StageResults, Stages

ADAPTER, EMBEDDER = "adapter", "embedder"

logger = logging.getLogger("trainer.learning")


def main() -> None:
    """Learn, then say what each stage came to and where the models are."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    wait_without_spinning()
    options = _options()
    learned = learn(load_settings(), options.data, options.start, options.out)
    for stage in learned.stages:
        logger.info("%s: %d steps in %.0f s", stage.name, stage.steps, stage.seconds)
    logger.info("what was learned is in %s", options.out / "learned")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.learning", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of items, interactions")
    parser.add_argument("--start", type=Path, help="folder of an adapter, an embedder or both")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    return parser.parse_args()


def learn(settings: Settings, data: Path, start: Path | None, out: Path) -> StageResults:
    """All stages on a folder of data. Raises TrainingError."""
    corpus = Corpus.from_folder(data, settings)
    begun = Found.of(start) if start else Found()
    stages = Stages(
        corpus,
        corpus.sessions.train,
        settings,
        language_model(settings),
        embedder_model(settings),
        lambda source: SentenceEmbedder(source, settings.embedder),
        out,
        out.parent / "vectors",
        lambda stage, done, of: logger.info("%s: %d of %d", stage, done, of),
    )
    learned = stages.learn(Models(begun.adapter, begun.embedder))
    _gather(learned.models, out / "learned")
    return learned


def _gather(models: Models, folder: Path) -> None:
    """The models side by side, in place of an earlier run's."""
    with making(folder, replace=True) as draft:
        for name, source in ((ADAPTER, models.adapter), (EMBEDDER, models.embedder)):
            if source is not None:
                shutil.copytree(source, draft / name)


if __name__ == "__main__":
    main()

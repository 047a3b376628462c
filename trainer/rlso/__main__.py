"""`python -m trainer.rlso`: RLSO on a folder of data, from an adapter, resumable.

Settings come from the usual places (PALATE_TRAIN__RLSO__ROUNDS=…; a vLLM server makes the rollouts
where PALATE_TRAIN__RLSO__VLLM_URL names one). The same command again goes on after the last
checkpoint, and with more rounds prolongs a run that has ended. With --report it only writes the
table and the curves of a run so far, which else are written at its end.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from models.settings import Settings, load_settings
from models.threads import wait_without_spinning
from trainer.rlso.report import write_report

logger = logging.getLogger(__name__)


def main() -> None:
    """Train, then say where the adapter is."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    wait_without_spinning()
    options = _options()
    if not options.report:
        logger.info("the best adapter by validation is %s", _run(load_settings(), options))
    from trainer.learning.rlso import LOG_FILE

    for path in write_report(options.out / LOG_FILE, options.out):
        logger.info("wrote %s", path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.rlso", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of items, interactions")
    parser.add_argument("--start", type=Path, help="adapter to start from, also the reference")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--report", action="store_true", help="only write the report so far")
    return parser.parse_args()


def _run(settings: Settings, options: argparse.Namespace) -> Path:
    from models.embedder import SentenceEmbedder
    from models.model_files import embedder_model, files_hash, language_model
    from trainer.corpus import Corpus
    from trainer.learning.policy import Policy
    from trainer.learning.rlso_phase import run_rlso
    from trainer.vectors import cached_vectors

    train, base = settings.train, language_model(settings)
    corpus = Corpus.from_folder(options.data, settings)
    embedder = SentenceEmbedder(embedder_model(settings), settings.embedder)
    weights = files_hash(embedder_model(settings))
    texts = corpus.embedding_texts()[1]
    items = cached_vectors(texts, lambda: embedder, weights, options.out.parent / "vectors")
    policy = Policy.load(
        base, train.policy, adapter=options.start, reference=options.start, seed=train.rlso.seed
    )
    return run_rlso(
        corpus,
        policy,
        embedder,
        train,
        options.out,
        start=options.start,
        embedder_name=weights,
        mask_seen=settings.ranking.exclude_seen,
        items=items,
    ).adapter


if __name__ == "__main__":
    main()

"""`python -m trainer.rlso`: RLSO on a folder of data, from an adapter, resumable.

Settings come from the usual places (PALATE_TRAIN__RLSO__ROUNDS=…; a vLLM server makes the rollouts
where PALATE_TRAIN__RLSO__VLLM_URL names one). The same command again goes on after the last
checkpoint, and with more rounds prolongs a run that has ended. With --report it only writes the
table and the curves of a run so far, which else are written at its end. With --signal N it trains
nothing, and writes what could be learned from, measured on N training users, to OUT/signal.md.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import NamedTuple

from models.engines.embedder import SentenceEmbedder
from models.engines.model_files import embedder_model, files_hash, language_model
from models.engines.threads import wait_without_spinning
from models.ports import Vectors
from models.settings import Settings, load_settings
from trainer.data.corpus import Corpus
from trainer.data.vector_cache import cached_vectors
from trainer.learning.policy import Policy, policy_options
from trainer.learning.profile_builders import Learned
from trainer.learning.rlso import LOG_FILE, run_rlso
from trainer.rlso.diagnosis import diagnose
from trainer.rlso.report import write_report

logger = logging.getLogger(__name__)


def main() -> None:
    """Train, then say where the adapter is; or only measure, or report."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    wait_without_spinning()
    options = _options()
    if options.signal:
        written = [_signal(load_settings(), options)]
    else:
        if not options.report:
            logger.info("the best adapter by validation is %s", _run(load_settings(), options))
        written = write_report(options.out / LOG_FILE, options.out)
    for path in written:
        logger.info("wrote %s", path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.rlso", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of items, interactions")
    parser.add_argument(
        "--start", type=Path, help="folder of an adapter, also the reference, an embedder or both"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--report", action="store_true", help="only write the report so far")
    only.add_argument("--signal", type=int, metavar="N", help="only measure, on N training users")
    return parser.parse_args()


class _Opened(NamedTuple):
    """What a run works with."""

    corpus: Corpus
    policy: Policy
    adapter: Path | None
    embedder: SentenceEmbedder
    embedder_name: str
    items: Vectors


def _opened(settings: Settings, options: argparse.Namespace) -> _Opened:
    train, begun = settings.train, Learned.of(options.start) if options.start else Learned()
    corpus = Corpus.from_folder(options.data, settings)
    source = begun.embedder or embedder_model(settings)
    embedder, name = SentenceEmbedder(source, settings.embedder), files_hash(source)
    texts = corpus.embedding_texts()[1]
    policy = Policy.load(
        language_model(settings),
        policy_options(settings),
        adapter=begun.adapter,
        reference=begun.adapter,
        seed=train.rlso.seed,
    )
    items = cached_vectors(texts, lambda: embedder, name, options.out.parent / "vectors")
    return _Opened(corpus, policy, begun.adapter, embedder, name, items)


def _run(settings: Settings, options: argparse.Namespace) -> Path:
    made = _opened(settings, options)
    return run_rlso(
        made.corpus,
        made.policy,
        made.embedder,
        settings.train,
        options.out,
        start=made.adapter,
        embedder_name=made.embedder_name,
        mask_seen=settings.ranking.exclude_seen,
        max_tokens=settings.profile.max_tokens,
        items=made.items,
    ).adapter


def _signal(settings: Settings, options: argparse.Namespace) -> Path:
    made, path = _opened(settings, options), options.out / "signal.md"
    found = diagnose(
        made.corpus,
        made.policy,
        made.embedder,
        made.items,
        settings.train.rlso,
        options.signal,
        mask_seen=settings.ranking.exclude_seen,
        max_tokens=settings.profile.max_tokens,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found + "\n")
    return path


if __name__ == "__main__":
    main()

"""`python -m trainer.starter`: make the starter release from data/sample.

Trains, measures on held-out users, and writes adapter, manifest and model card to `--out`. A run
that was killed goes on where it was when `--work` is the same folder. Order, initial weights and
data follow from seeds alone; how far numbers repeat on another machine is its matrix library's.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from models.engines.threads import wait_without_spinning
from models.release.starter import FOLDER
from models.settings import load_settings

logger = logging.getLogger("trainer.starter")


def main() -> None:
    """Make the release."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m trainer.starter", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the release")
    parser.add_argument("--work", type=Path, default=Path("var/starter"), help="folder of the run")
    options = parser.parse_args()
    wait_without_spinning()

    from trainer.starter.material import read_material
    from trainer.starter.starter_release import make_starter

    release = make_starter(read_material(load_settings()), options.work, options.out)
    logger.info("%s is in %s: %s", release.id, options.out, release.metrics)


if __name__ == "__main__":
    main()

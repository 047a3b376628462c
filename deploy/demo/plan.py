"""Where the demo runs, and the settings that differ from the defaults, with their reasons."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.broker import free_port
from deploy.commands.up import live_parts
from deploy.demo.sample import DemoSample
from deploy.kafka_jars import find_java, jars
from deploy.stack import Stack
from models.errors import StackError
from models.settings import Settings, load_settings

FOLDER = Path("var/demo")
FIRST_PROFILES = 8  # customers whose past is long enough for one; about 20 more grow into it
CALLS_PER_MINUTE = 30.0  # the embedded model writes about one profile a second on two cores
BURST = 12.0


# What a machine needs once before the demo can start: Kafka's jars and the converted model.

# In a process of its own, because it loads torch and should give the memory back.
CONVERT = (
    "from models.engines.model_files import language_model\n"
    "from models.settings import load_settings\n"
    "language_model(load_settings())"
)


def prepare(settings: Settings, console: Console) -> None:
    """Fetch the jars and convert the language model, where that was not done before.

    Says what takes its time. Raises StackError if either fails.
    """
    with live_parts(console) as say:
        if settings.kafka.embedded:
            find_java()
            jars(settings, lambda what: say("Kafka's jars", what))
            say("Kafka's jars", "ready")
        say("language model", "converted on the first run: half a minute on idle cores")
        done = subprocess.run(
            [sys.executable, "-c", CONVERT], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StackError(f"the language model cannot be prepared: {done.stderr[-400:]}")
        say("language model", "ready")


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """The demo's settings, and how fast it streams."""

    settings: Settings
    rate: float  # events per second of the live part


def make_plan(sample: DemoSample, rate: float) -> DemoPlan:
    """Clear what an earlier demo left, take free ports, and set the environment for the roles.

    The roles are processes of their own and read the environment, as they do in production.
    """
    usual = load_settings()
    _clear(usual)
    ours = _overrides(usual, sample)
    os.environ.update(ours)
    return DemoPlan(load_settings(), rate)


def _overrides(usual: Settings, sample: DemoSample) -> dict[str, str]:
    values = {
        "DATA_DIR": str(FOLDER),
        "MODELS_DIR": str(usual.models_dir),  # converted once, not for every demo
        "METRICS__TRACKER_PORT": str(free_port()),
        "METRICS__PROFILER_PORT": str(free_port()),
        "METRICS__RECORDER_PORT": str(free_port()),
        "METRICS__INDEXER_PORT": str(free_port()),
        "WORKERS": "1",
        "LOG__SECONDS": "0.5",  # what the demo shows, it reads from the log
        "INDEX__COOCCURRENCE_EVERY_S": "5",  # a month passes in 20 seconds
        "TRIGGER__FIRST_EVIDENCE": f"{sample.evidence_of_rank(FIRST_PROFILES):g}",
        "TRIGGER__EVIDENCE": "8",
        "TRIGGER__MIN_INTERVAL_S": "15",
        "TRIGGER__CALLS_PER_MINUTE": f"{CALLS_PER_MINUTE:g}",
        "TRIGGER__BURST_CALLS": f"{BURST:g}",
    }
    return {f"PALATE_{name}": value for name, value in {**values, **_kafka(usual)}.items()}


def _kafka(usual: Settings) -> dict[str, str]:
    """A broker of our own on a free port; or, on the user's cluster, topics of our own."""
    if usual.kafka.embedded:
        return {"KAFKA__BOOTSTRAP": f"127.0.0.1:{free_port()}", "KAFKA__EMBEDDED": "true"}
    return {"KAFKA__PREFIX": f"palate-demo-{uuid.uuid4().hex[:6]}-"}


def _clear(usual: Settings) -> None:
    """Stop an earlier demo that was killed, and remove what it kept."""
    earlier = usual.model_copy(update={"data_dir": FOLDER})
    if FOLDER.exists():
        Stack(earlier).stop(lambda _part, _what: None)
        shutil.rmtree(FOLDER)

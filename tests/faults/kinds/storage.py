"""Files that are gone, cut short, or not what they were."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeVar

from tests.faults.kinds.broker import expire
from tests.faults.kinds.processes import TRACKERS
from tests.faults.registry import Faulty, Skipped, fault
from tests.faults.system import System

T = TypeVar("T")
COMPACTED_S = 25.0  # after which the recorder has compacted once (every 20 s)


def worker_folder(system: System, name: str) -> Path:
    """A tracker's state folder."""
    return system.settings.data_dir / "state" / name.replace("tracker", "worker")


def some(paths: list[Path], chance: Random, what: str) -> Path:
    """One of these files. Raises Skipped if there is none yet."""
    if not paths:
        raise Skipped(f"there is no {what} yet")
    return chance.choice(sorted(paths))


def while_it_is_there(damage: Callable[[], T]) -> T:
    """Damage a file of a running system, which may take it away and have another in its place."""
    for _ in range(20):
        with contextlib.suppress(FileNotFoundError):
            return damage()
    raise Skipped("its files do not stay long enough to be damaged")


def flip(path: Path, chance: Random) -> None:
    """One bit in twenty places is another."""
    content = bytearray(path.read_bytes())
    for _ in range(20):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


@fault("state is made again from the changelog")
def state_folder_deleted(system: System, chance: Random) -> Faulty:
    """While its worker is dead."""
    name = chance.choice(TRACKERS)
    system.kill(name)
    shutil.rmtree(worker_folder(system, name), ignore_errors=True)
    yield 0.0


def _damaged_state(
    pattern: str, damage: Callable[[Path, Random], None]
) -> Callable[[System, Random], Faulty]:
    def strike(system: System, chance: Random) -> Faulty:
        name = chance.choice(TRACKERS)
        system.kill(name)
        if not _files(system, name, pattern):  # a start after a kill writes what was in the WAL
            system.up()
            system.kill(name)
        damage(some(_files(system, name, pattern), chance, pattern), chance)
        yield 0.0

    return strike


def _files(system: System, name: str, pattern: str) -> list[Path]:
    paths = worker_folder(system, name).rglob(pattern)
    return [path for path in paths if path.stat().st_size]


def _empty(path: Path, _chance: Random) -> None:
    path.write_bytes(b"")


def _truncate(path: Path, _chance: Random) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _delete(path: Path, _chance: Random) -> None:
    path.unlink()


for _name, _pattern, _damage in (
    ("rocksdb_current_empty", "CURRENT", _empty),
    ("rocksdb_manifest_missing", "MANIFEST-*", _delete),
    ("rocksdb_sst_missing", "*.sst", _delete),
    ("rocksdb_sst_flipped", "*.sst", flip),
    ("rocksdb_wal_flipped", "*.log", flip),
):
    _strike = _damaged_state(_pattern, _damage)
    _strike.__name__ = _name
    fault("a damaged state folder heals itself from the changelog")(_strike)


def _damaged_snapshot(damage: Callable[[Path, Random], None]) -> Callable[[System, Random], Faulty]:
    def strike(system: System, chance: Random) -> Faulty:
        folder = system.settings.cooccurrence_dir
        system.kill("indexer", *TRACKERS)
        current = folder / f"{(folder / 'current').read_text().strip()}.npz"
        damage(some([current], chance, "snapshot"), chance)
        yield 0.0

    return strike


for _name, _damage in (("truncated", _truncate), ("empty", _empty), ("missing", _delete)):
    _strike = _damaged_snapshot(_damage)
    _strike.__name__ = f"cooccurrence_{_name}"
    fault("a derived snapshot that cannot be read ends nobody")(_strike)


@fault("vectors are made again by `palate rebuild-index`")
def lance_deleted(system: System, chance: Random) -> Faulty:
    """While everybody runs."""
    shutil.rmtree(system.settings.lancedb_uri, ignore_errors=True)
    yield 3.0
    _rebuild_index(system)


@fault("vectors are made again by `palate rebuild-index`")
def lance_truncated(system: System, chance: Random) -> Faulty:
    """A data file of a table is cut short."""
    folder = Path(system.settings.lancedb_uri)
    while_it_is_there(
        lambda: _truncate(some(list(folder.rglob("data/*.lance")), chance, "Lance file"), chance)
    )
    yield 3.0
    _rebuild_index(system)


def _rebuild_index(system: System) -> None:
    """As the documentation says: the indexer must not run."""
    system.kill("indexer")
    done = system.palate("rebuild-index")
    system.require(done.returncode == 0, "`palate rebuild-index` succeeds", done.stderr)
    for name in TRACKERS:
        system.kill(name)


@fault("a full disk stops, and with space again nothing is lost", alone=True)
def disk_full(system: System, chance: Random) -> Faulty:
    """Kafka's, RocksDB's and the log's disk has 3 MB left for a while."""
    system.fill_disk()
    yield chance.uniform(6.0, 12.0)
    system.empty_disk()


def _partition(system: System, chance: Random) -> Path:
    """A partition of the log with an old segment; a new one comes every second."""

    def folders() -> list[Path]:
        manifests = (system.settings.log_dir / "interactions").glob("*/manifest.json")
        return [
            path.parent for path in manifests if len(json.loads(path.read_bytes())["segments"]) > 1
        ]

    system.waited(folders, COMPACTED_S)
    return some(folders(), chance, "partition of the log with two segments")


@fault("an absent manifest beside segments is damage, and is made again", alone=True)
def manifest_lost(system: System, chance: Random) -> Faulty:
    """While the recorder is dead; Kafka still has every record."""
    folder = _partition(system, chance)
    system.kill("recorder")
    (folder / "manifest.json").unlink()
    yield 0.0


@fault("nothing is swept that no manifest has superseded", alone=True)
def manifest_lost_after_retention(system: System, chance: Random) -> Faulty:
    """Kafka has forgotten the oldest records; the operator does what the recorder advises."""
    folder = _partition(system, chance)
    segments = json.loads((folder / "manifest.json").read_bytes())["segments"]
    system.flow.pause()
    system.loop.call(system.mirror.catch_up())
    system.kill("recorder")
    (folder / "manifest.json").unlink()
    middle = segments[len(segments) // 2]["first_offset"]
    system.loop.call(expire(system, int(folder.name), middle))
    system.flow.start()
    system.stack.environment["recorder"]["PALATE_LOG__ACCEPT_GAP"] = "true"
    system.start("recorder")
    yield COMPACTED_S
    system.stack.environment["recorder"].clear()
    system.terminate("recorder")
    system.waited(lambda: system.process("recorder") is None, 30.0)


@fault("one damaged old segment stops nobody, and what Kafka has is read again", alone=True)
def segment_damaged(system: System, chance: Random) -> Faulty:
    """Recording goes on. What is still damaged after two compactions is restored by hand."""
    folder, backup = _partition(system, chance), system.base / "segment"

    def damage() -> Path:
        segments = json.loads((folder / "manifest.json").read_bytes())["segments"]
        chosen = folder / chance.choice(segments[:-1] or segments)["file"]
        shutil.copy2(chosen, backup)
        chance.choice((_truncate, _empty))(chosen, chance)
        return chosen

    damaged = while_it_is_there(damage)
    yield COMPACTED_S
    before = _end(folder)
    yield 5.0
    system.require(
        _end(folder) > before,
        "recording goes on beside a damaged segment",
        f"{folder.name}: stays at {before}",
    )
    if _named(folder, damaged.name):
        shutil.copy2(backup, damaged)


def _end(folder: Path) -> int:
    return int(json.loads((folder / "manifest.json").read_bytes())["segments"][-1]["last_offset"])


def _named(folder: Path, file: str) -> bool:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return any(segment["file"] == file for segment in manifest["segments"])

"""A damaged co-occurrence snapshot: the indexer makes it anew, the tracker goes on without it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from models.errors import SnapshotDamaged
from models.fakes import MemoryIndex
from models.ranking.cooccurrence import current_id, load_current, load_newest_whole
from models.settings import Settings
from streams.indexer.snapshots import Snapshots
from streams.metrics import IndexerMetrics, TrackerMetrics
from streams.tracker.serving_views import ServingViews
from tests.models.ranking.test_cooccurrence import near
from tests.streams.indexer.test_evidence import event, logged

Damage = Callable[[Path], None]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 9)


def flipped(path: Path) -> None:
    with np.load(path) as stored:
        values = stored["popularity"].tobytes()  # not all of an archive's own headers are checked
    content = bytearray(path.read_bytes())
    content[content.index(values)] ^= 0xFF
    path.write_bytes(bytes(content))


def gone(path: Path) -> None:
    path.unlink()


def of_an_older_palate(path: Path) -> None:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored if name not in ("both", "users")}
    np.savez(path, **arrays)


def contradicting(path: Path) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **(arrays | {"columns": arrays["columns"] + 1_000}))


DAMAGES = [truncated, empty, garbage, flipped, gone, of_an_older_palate, contradicting]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path)
    logged(settings.log_dir, event("u", "a"), event("u", "b", day=1), event("v", "a"))
    return settings


@pytest.fixture
def indexer(settings: Settings) -> Snapshots:
    snapshots = Snapshots(settings, IndexerMetrics(CollectorRegistry()))
    snapshots.refresh()
    return snapshots


def current(settings: Settings) -> Path:
    return settings.cooccurrence_dir / f"{current_id(settings.cooccurrence_dir)}.npz"


def derived(settings: Settings) -> ServingViews:
    found = ServingViews(settings, MemoryIndex(), TrackerMetrics(CollectorRegistry()))
    found.refresh()
    return found


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_indexer_makes_a_damaged_snapshot_anew(
    settings: Settings, indexer: Snapshots, damage: Damage
) -> None:
    whole = load_current(settings.cooccurrence_dir)
    damage(current(settings))
    with pytest.raises(SnapshotDamaged, match="rebuild-index"):
        load_current(settings.cooccurrence_dir)
    indexer.refresh()
    made = load_current(settings.cooccurrence_dir)
    assert made is not None
    assert whole is not None
    assert (made.id, near(made, "a")) == (whole.id, near(whole, "a"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_indexer_that_starts_makes_it_anew_too(
    settings: Settings, indexer: Snapshots, damage: Damage
) -> None:
    damage(current(settings))
    Snapshots(settings, IndexerMetrics(CollectorRegistry())).refresh()
    assert load_current(settings.cooccurrence_dir) is not None


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_tracker_names_it_uses_none_and_takes_the_new_one(
    settings: Settings, indexer: Snapshots, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    damage(path := current(settings))
    tracker = derived(settings)
    assert tracker._cooccurrence is None
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 1
    assert str(path) in said[0]
    tracker.refresh()
    assert len(caplog.records) == 1  # said once
    indexer.refresh()
    tracker.refresh()
    assert tracker._cooccurrence is not None
    assert tracker._cooccurrence.id == path.stem


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_tracker_falls_back_on_the_one_before(
    settings: Settings, indexer: Snapshots, damage: Damage
) -> None:
    before = current(settings)
    logged(settings.log_dir, event("v", "c", day=2))
    indexer.refresh()
    assert current(settings) != before
    damage(current(settings))
    snapshot = derived(settings)._cooccurrence
    assert snapshot is not None
    assert snapshot.id == before.stem


def test_a_pointer_that_names_nothing_is_made_anew(settings: Settings, indexer: Snapshots) -> None:
    whole = current(settings)
    for content in (b"", b"\xff\xfe\x00", b"../../etc/passwd", b"no-such-snapshot"):
        (settings.cooccurrence_dir / "current").write_bytes(content)
        assert derived(settings)._cooccurrence is not None  # the newest that is whole
        indexer.refresh()
        assert current(settings) == whole


@given(st.binary(max_size=300) | st.tuples(st.integers(0, 2_000), st.binary(max_size=8)))
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_bytes_end_a_reader(
    settings: Settings, indexer: Snapshots, change: bytes | tuple[int, bytes]
) -> None:
    """Arbitrary files, and whole ones with a few bytes overwritten."""
    indexer.refresh()
    path = current(settings)
    whole = path.read_bytes()
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        at, content = change
        stream = io.BytesIO(whole)
        stream.seek(at)
        stream.write(content)
        path.write_bytes(stream.getvalue())
    said: list[SnapshotDamaged] = []
    found = load_newest_whole(settings.cooccurrence_dir, said.append)
    path.write_bytes(whole)
    assert (found is None) == (len(said) == 1)

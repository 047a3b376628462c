"""Event time runs at the asked speed, and positions survive."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ImportFailed
from streams.importers.survey import Ready
from streams.importers.transmission import ROWS_AHEAD, Pacer, PositionFile, RowsAhead


def test_the_first_event_is_due_at_once() -> None:
    assert Pacer(1.0).wait_s(event_ms=5_000, wall_s=77.0) == 0.0


def test_an_hour_of_events_takes_a_second_at_speed_3600() -> None:
    pacer = Pacer(3600)
    pacer.wait_s(event_ms=0, wall_s=100.0)

    assert pacer.wait_s(event_ms=3_600_000, wall_s=100.0) == pytest.approx(1.0)
    assert pacer.wait_s(event_ms=3_600_000, wall_s=100.75) == pytest.approx(0.25)


@given(
    speed=st.floats(0.01, 1e9),
    events=st.lists(st.integers(0, 10**13), min_size=1, max_size=20),
    late_s=st.floats(0, 1e6),
)
def test_nobody_waits_for_the_past(speed: float, events: list[int], late_s: float) -> None:
    pacer = Pacer(speed)
    first = events[0]
    pacer.wait_s(first, 0.0)

    for event in events:
        wait = pacer.wait_s(event, late_s)
        assert wait >= 0
        if (event - first) / 1000 / speed <= late_s:
            assert wait == 0


def ready(row: int, event_time: int | None) -> Ready:
    return Ready(row, b"u", b"{}", event_time)


@pytest.mark.parametrize("behind", [0, 1, ROWS_AHEAD - 1])
def test_a_row_of_a_wrong_clock_holds_nobody_up(behind: int) -> None:
    pacer, day, stray = Pacer(3600), 86_400_000, 4_000 * 86_400_000
    pacer.wait_s(0, 0.0)
    rows = RowsAhead(iter([ready(n, stray + n) for n in range(behind)] + [ready(behind, day)]))

    assert pacer.wait_s(stray, 0.0) > 3_600
    assert pacer.is_out_of_order(stray, rows.ahead())


def test_a_long_pause_in_a_file_is_kept() -> None:
    pacer, year = Pacer(3600), 365 * 86_400_000
    pacer.wait_s(0, 0.0)
    rows = RowsAhead(iter([ready(1, year - 1_000), ready(2, None), ready(3, year + 1)]))

    assert not pacer.is_out_of_order(year, rows.ahead())
    assert not pacer.is_out_of_order(year, RowsAhead(iter([])).ahead())


@given(count=st.integers(0, 30), looks=st.sets(st.integers(0, 30)), most=st.integers(1, 10))
def test_rows_looked_at_before_their_turn_come_once_and_in_order(count, looks, most) -> None:
    rows = RowsAhead((ready(n, n) for n in range(count)), most)
    seen = []
    for row in rows:
        seen.append(row.row)
        if row.row in looks:
            ahead = [one.row for one in rows.ahead()]
            assert ahead == list(range(row.row + 1, count))[:most]
    assert seen == list(range(count))


def source(folder: Path, content: str = "a\n1\n") -> Path:
    path = folder / "my file.csv"
    path.write_text(content)
    return path


def test_a_saved_position_is_found_again(tmp_path: Path) -> None:
    path = source(tmp_path)
    PositionFile(tmp_path / "imports", path, "generic").save(17)

    assert PositionFile(tmp_path / "imports", path, "generic").load() == 17


def test_another_format_target_or_content_is_another_import(tmp_path: Path) -> None:
    path = source(tmp_path)
    PositionFile(tmp_path / "imports", path, "generic", "cluster-1").save(17)

    assert PositionFile(tmp_path / "imports", path, "movielens", "cluster-1").load() == 0
    assert PositionFile(tmp_path / "imports", path, "generic", "cluster-2").load() == 0
    source(tmp_path, "a\n1\n2\n")
    assert PositionFile(tmp_path / "imports", path, "generic", "cluster-1").load() == 0


def test_a_forgotten_position_is_the_beginning(tmp_path: Path) -> None:
    file = PositionFile(tmp_path / "imports", source(tmp_path), "generic")
    file.save(17)
    file.forget()
    file.forget()

    assert file.load() == 0


def test_an_unreadable_position_says_what_to_do(tmp_path: Path) -> None:
    file = PositionFile(tmp_path / "imports", source(tmp_path), "generic")
    file.save(17)
    file.path.write_text("{")

    with pytest.raises(ImportFailed, match="--restart"):
        file.load()

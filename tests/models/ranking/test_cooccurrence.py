from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking import cooccurrence_build
from models.ranking.cooccurrence import (
    KEPT_SNAPSHOTS,
    Cooccurrence,
    current_id,
    load_current,
    save_snapshot,
)
from models.ranking.cooccurrence_build import PositivePairs, build

DAY_MS = 86_400_000
ITEMS = tuple("abcdef")

observations = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(0, len(ITEMS) - 1)),
    st.tuples(st.sampled_from([0.2, 0.6, 1.0]), st.integers(0, 400)),
    max_size=20,
)
Observed = dict[tuple[int, int], tuple[float, int]]


def evidence_of(observed: Observed) -> PositivePairs:
    keys, values = list(observed), list(observed.values())
    return PositivePairs(
        ids=ITEMS,
        users=np.array([user for user, _ in keys], np.int64),
        items=np.array([item for _, item in keys], np.int64),
        weights=np.array([weight for weight, _ in values], np.float64),
        timestamps=np.array([day * DAY_MS for _, day in values], np.int64),
    )


def built(
    observed: Observed, neighbours: int = 100, half_life: float = 365.0, support: float = 0.0
) -> Cooccurrence:
    return build(
        evidence_of(observed),
        neighbours=neighbours,
        half_life_days=half_life,
        popularity_half_life_days=30.0,
        support=support,
    )


def near(snapshot: Cooccurrence, item: str) -> list[tuple[str, float]]:
    """(item, similarity) of the nearest items, best first."""
    place = snapshot.ids.index(item)
    row = slice(snapshot.indptr[place], snapshot.indptr[place + 1])
    pairs = zip(snapshot.columns[row], snapshot.values[row], strict=True)
    return [(snapshot.ids[column], float(value)) for column, value in pairs]


def naive(
    observed: Observed, half_life: float, support: float = 0.0
) -> dict[tuple[str, str], tuple[float, int]]:
    """(similarity, users who had both), written out pair by pair."""
    similar = {}
    users = len({user for user, _ in observed})
    for i in range(len(ITEMS)):
        for j in range(len(ITEMS)):
            together, both = 0.0, 0
            for user in range(5):
                if i != j and (user, i) in observed and (user, j) in observed:
                    (w_i, t_i), (w_j, t_j) = observed[user, i], observed[user, j]
                    together += w_i * w_j * 0.5 ** (abs(t_i - t_j) / half_life)
                    both += 1
            if both:
                size_i = sum(w * w for (_, item), (w, _) in observed.items() if item == i)
                size_j = sum(w * w for (_, item), (w, _) in observed.items() if item == j)
                n_i, n_j = (sum(item == one for _, item in observed) for one in (i, j))
                cosine, chance = together / (size_i * size_j) ** 0.5, (n_i * n_j) ** 0.5 / users
                shrunk = (both * cosine + support * chance) / (both + support)
                similar[ITEMS[i], ITEMS[j]] = shrunk, both
    return similar


@given(
    observations,
    st.sampled_from([7.0, 365.0]),
    st.sampled_from([0.0, 0.5, 10.0]),
    st.sampled_from([(1, 1, 0), (3, 2, 0), (4_000_000, 1_000_000, 8)]),
)
def test_it_equals_the_formula_written_out(
    observed: Observed, half_life: float, support: float, at_once: tuple[int, int, int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        names = ("_PAIRS_AT_ONCE", "_ROWS_AT_ONCE", "_SPARSE")
        for name, value in zip(names, at_once, strict=True):
            patch.setattr(cooccurrence_build, name, value)
        snapshot = built(observed, half_life=half_life, support=support)
    values = {(a, b): value for a in ITEMS for b, value in near(snapshot, a)}
    expected = naive(observed, half_life, support)
    assert values == pytest.approx({pair: value for pair, (value, _) in expected.items()}, abs=1e-6)
    assert both_of(snapshot) == {pair: both for pair, (_, both) in expected.items()}
    assert snapshot.users.tolist() == [
        len({user for user, item in observed if item == place}) for place in range(len(ITEMS))
    ]


def both_of(snapshot: Cooccurrence) -> dict[tuple[str, str], int]:
    return {
        (item, ITEMS[snapshot.columns[cell]]): int(snapshot.both[cell])
        for row, item in enumerate(ITEMS)
        for cell in range(snapshot.indptr[row], snapshot.indptr[row + 1])
    }


def test_what_one_user_had_together_says_less_than_what_many_had() -> None:
    many = {(user, item): (1.0, 0) for user in range(4) for item in (0, 1)}
    one = {(4, 2): (1.0, 0), (4, 3): (1.0, 0)}
    plain, shrunk = built({**many, **one}), built({**many, **one}, support=2.0)
    assert dict(near(plain, "c"))["d"] == dict(near(plain, "a"))["b"]
    assert dict(near(shrunk, "c"))["d"] < dict(near(shrunk, "a"))["b"]


def test_a_sequence_longer_than_the_limit_is_counted_around_each_item() -> None:
    observed = {(0, item): (1.0, item) for item in range(len(ITEMS))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cooccurrence_build, "MAX_STEPS", 2)
        snapshot = built(observed)
    assert [item for item, _ in near(snapshot, "a")] == ["b", "c"]
    assert {item for item, _ in near(snapshot, "d")} == set("bcef")


@given(observations, st.integers(1, 3))
def test_the_nearest_are_kept_best_first(observed: Observed, kept: int) -> None:
    everything, nearest = built(observed), built(observed, neighbours=kept)
    for item in ITEMS:
        assert near(nearest, item) == near(everything, item)[:kept]
        values = [value for _, value in near(everything, item)]
        assert values == sorted(values, reverse=True)


@given(observations, st.randoms())
def test_the_order_of_the_rows_does_not_matter(observed: Observed, random: object) -> None:
    shuffled = list(observed.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = built(observed), built(dict(shuffled))
    assert one.id == other.id
    np.testing.assert_array_equal(one.values, other.values)


def test_equal_neighbours_go_by_item_id() -> None:
    observed = {(0, 3): (1.0, 0), (0, 1): (1.0, 0), (0, 2): (1.0, 0)}
    assert [item for item, _ in near(built(observed), "d")] == ["b", "c"]


def test_pairs_far_apart_count_less() -> None:
    close = dict(near(built({(0, 0): (1.0, 0), (0, 1): (1.0, 0)}), "a"))
    far = dict(near(built({(0, 0): (1.0, 0), (0, 1): (1.0, 365)}), "a"))
    assert close["b"] == pytest.approx(1.0)
    assert far["b"] == pytest.approx(0.5)


def test_popularity_counts_users_and_forgets() -> None:
    observed = {(0, 0): (1.0, 60), (1, 0): (1.0, 60), (0, 1): (1.0, 30), (0, 2): (0.2, 60)}
    popularity = dict(zip(ITEMS, built(observed).popularity, strict=True))
    assert popularity == pytest.approx({"a": 2, "b": 0.5, "c": 0.2, "d": 0, "e": 0, "f": 0})


def test_one_wrong_clock_takes_nothing_from_popularity() -> None:
    observed = {(user, user % 2): (1.0, 30) for user in range(4)}
    stray = {(4, 2): (1.0, 6_000)}

    popularity = built(observed | stray).popularity

    assert popularity.tolist() == [2, 2, 1, 0, 0, 0]


def test_the_id_names_the_inputs() -> None:
    observed = {(0, 0): (1.0, 0), (0, 1): (1.0, 0)}
    assert built(observed).id == built(observed).id
    assert built(observed).id != built(observed, neighbours=5).id
    assert built(observed).id != built({**observed, (1, 1): (1.0, 0)}).id


def test_without_events_no_item_has_neighbours() -> None:
    assert near(built({}), "a") == []


def test_a_snapshot_is_read_as_it_was_saved(tmp_path: Path) -> None:
    assert load_current(tmp_path) is None
    saved = built({(0, 0): (1.0, 0), (0, 1): (0.6, 9), (1, 1): (1.0, 0)})
    save_snapshot(saved, tmp_path / "new")
    found = load_current(tmp_path / "new")
    assert found is not None
    assert (found.id, found.ids) == (saved.id, saved.ids)
    for field in ("indptr", "columns", "values", "both", "users", "popularity"):
        np.testing.assert_array_equal(getattr(found, field), getattr(saved, field))


def test_a_crash_before_the_swap_leaves_the_old_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = built({(0, 0): (1.0, 0)}), built({(0, 1): (1.0, 0)})
    save_snapshot(old, tmp_path)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("models.ranking.cooccurrence._write_pointer", crash)
    with pytest.raises(KeyboardInterrupt):
        save_snapshot(new, tmp_path)
    assert current_id(tmp_path) == old.id
    found = load_current(tmp_path)
    assert found is not None
    assert found.id == old.id


def test_old_snapshots_go_but_the_last_few_stay(tmp_path: Path) -> None:
    base = built({(0, 0): (1.0, 0), (0, 1): (1.0, 0)})
    for number in range(KEPT_SNAPSHOTS + 3):
        save_snapshot(replace(base, id=f"s{number}"), tmp_path)
        assert current_id(tmp_path) == f"s{number}"
        assert load_current(tmp_path) is not None
    assert len(list(tmp_path.glob("*.npz"))) <= KEPT_SNAPSHOTS + 1
    assert not list(tmp_path.glob("*.tmp"))


def test_going_back_to_an_old_snapshot_is_one_swap(tmp_path: Path) -> None:
    one, other = built({(0, 0): (1.0, 0)}), built({(0, 1): (1.0, 0)})
    for snapshot in (one, other, one):
        save_snapshot(snapshot, tmp_path)
    assert current_id(tmp_path) == one.id

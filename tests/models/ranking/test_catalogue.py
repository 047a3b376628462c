from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import VectorIndexError
from models.ports import VectorRow
from models.ranking.catalogue import Catalogue


def row(name: str, sequence: int = 0, value: float = 1.0, **attributes: object) -> VectorRow:
    return VectorRow(name, np.array([value, 0.0], np.float32), f"text {name}", sequence, attributes)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=30))
def test_an_updated_catalogue_equals_one_made_of_the_end_state(
    changes: list[tuple[str, bool]],
) -> None:
    catalogue = Catalogue.empty()
    held: dict[str, VectorRow] = {}
    for number, (name, removed) in enumerate(changes):
        changed = (
            row(name, number, number / 64, removed=True)
            if removed
            else row(name, number, number / 64)
        )
        catalogue = catalogue.updated([changed])
        held = {other: kept for other, kept in held.items() if other != name}
        if not removed:
            held[name] = changed
    made = Catalogue.of(list(held.values()))
    assert catalogue.ids == made.ids == tuple(sorted(held))
    assert catalogue.row_of == made.row_of
    assert catalogue.labels == made.labels
    np.testing.assert_array_equal(catalogue.matrix.reshape(-1, 2), made.matrix.reshape(-1, 2))
    assert catalogue.sequence == len(changes) - 1


def test_an_update_leaves_the_old_catalogue_as_it_was() -> None:
    before = Catalogue.of([row("a", available=False, label="A lamp"), row("b")])
    after = before.updated([row("b", 7, available=False)], removed=["a"])
    assert before.ids == ("a", "b")
    assert before.available.tolist() == [False, True]
    assert before.labels == ("A lamp", "text b")
    assert (after.ids, after.available.tolist(), after.sequence) == (("b",), [False], 7)


def test_no_change_costs_nothing() -> None:
    catalogue = Catalogue.of([row("a")])
    assert catalogue.updated([]) is catalogue


def test_an_emptied_catalogue_can_be_filled_again() -> None:
    catalogue = Catalogue.of([row("a")]).updated([], removed=["a"])
    assert len(catalogue) == 0
    assert catalogue.updated([row("b")]).ids == ("b",)


def test_vectors_of_two_releases_are_refused() -> None:
    other = VectorRow("b", np.ones(3, np.float32), "b", 1, {})
    with pytest.raises(VectorIndexError, match="two releases"):
        Catalogue.of([row("a")]).updated([other])

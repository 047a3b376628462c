from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import VectorIndexError
from models.fakes import MemoryIndex
from models.ports import VectorRow, Vectors
from models.ranking.candidates import search_candidates
from models.ranking.catalogue import Catalogue
from models.ranking.cooccurrence import Cooccurrence
from models.ranking.neighbours import Neighbours, align
from models.ranking.queries import Query, Recent, shares_of
from models.ranking.reasons import PARTS, sentence_weights
from models.ranking.scoring import rank_batch
from models.schemas import ReasonKind, RecommendedItem, Sentence
from models.settings import RankingSettings

DIMENSION = 24
NAMES = [f"i{n:02d}" for n in range(40)]
EXACT = RankingSettings(diversity=0.0)


def unit(seed: int, count: int = 1) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def catalogue_of(vectors: Vectors, unavailable: frozenset[str] = frozenset()) -> Catalogue:
    rows = [
        VectorRow(
            name, vector, name, 0, {"label": f"Item {name}", "available": name not in unavailable}
        )
        for name, vector in zip(NAMES, vectors, strict=False)
    ]
    return Catalogue.of(rows)


def snapshot_of(
    pairs: dict[str, dict[str, float]],
    popularity: dict[str, float],
    both: int = 12,
    users: int = 40,
) -> Cooccurrence:
    """`both` users had each pair, of `users` who had each item."""
    ids = tuple(sorted({*pairs, *popularity, *(b for row in pairs.values() for b in row)}))
    place = {name: number for number, name in enumerate(ids)}
    rows = [sorted(pairs.get(name, {}).items(), key=lambda pair: -pair[1]) for name in ids]
    return Cooccurrence(
        id="snapshot",
        ids=ids,
        indptr=np.cumsum([0, *map(len, rows)]),
        columns=np.array([place[name] for row in rows for name, _ in row], np.int32),
        values=np.array([value for row in rows for _, value in row], np.float32),
        both=np.full(sum(map(len, rows)), both, np.int32),
        users=np.full(len(ids), users, np.int32),
        popularity=np.array([popularity.get(name, 0.0) for name in ids]),
    )


def random_world(seed: int) -> tuple[Catalogue, Neighbours]:
    random = np.random.default_rng(seed)
    vectors = unit(seed, len(NAMES))
    vectors[5] = vectors[3]  # some items are the same to the embedder
    pairs = {
        name: {
            other: float(random.random())
            for other in random.choice([*NAMES, "gone"], 5, replace=False)
            if other != name
        }
        for name in [*NAMES[:20], "gone"]
    }
    popularity = {name: float(random.integers(0, 50)) for name in NAMES}
    catalogue = catalogue_of(vectors, frozenset(NAMES[-3:]))
    return catalogue, align(snapshot_of(pairs, popularity), catalogue)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    names = st.sampled_from([*NAMES, "gone", "unknown"])
    recent = draw(st.lists(st.tuples(names, st.sampled_from([0.2, 0.6, 1.0])), max_size=30))
    profile = draw(st.none() | st.integers(0, 50))
    return Query(
        user_id="u",
        recent=[Recent(name, weight, f"e{n}") for n, (name, weight) in enumerate(recent)],
        profile=None if profile is None else unit(profile)[0],
        sentences=(Sentence(text="Likes lamps.", evidence=("e0",), items=tuple(NAMES[:2])),),
        seen=draw(st.frozensets(names, max_size=10)),
        hidden=draw(st.frozensets(names, max_size=10)),
    )


settings_strategy = st.builds(
    RankingSettings,
    diversity=st.sampled_from([0.0, 0.3, 1.0]),
    exclude_seen=st.booleans(),
    top_k=st.integers(1, 50),
    candidates=st.integers(1, 50),
    profile=st.sampled_from([0.0, 0.25]),
    recent=st.sampled_from([0.0, 1 / 3]),
    cooccurrence=st.sampled_from([0.0, 1.0]),
)


@given(st.integers(0, 5), st.lists(queries(), max_size=6), settings_strategy)
def test_a_batch_ranks_each_user_as_if_alone(
    seed: int, users: list[Query], settings: RankingSettings
) -> None:
    world = random_world(seed)
    alone = [rank_batch(*world, [query], settings)[0] for query in users]
    assert rank_batch(*world, users, settings) == alone
    assert rank_batch(*world, users[::-1], settings) == alone[::-1]


@given(st.integers(0, 5), queries(), settings_strategy)
def test_every_list_is_well_formed(seed: int, query: Query, settings: RankingSettings) -> None:
    catalogue, neighbours = random_world(seed)
    (items,) = rank_batch(catalogue, neighbours, [query], settings)
    names = [item.item_id for item in items]
    left_out = {*NAMES[-3:], *query.hidden} | (query.seen if settings.exclude_seen else set())
    assert len(names) == len(set(names)) == min(settings.top_k, len(set(NAMES) - left_out))
    assert not left_out.intersection(names)
    assert [item.rank for item in items] == list(range(1, len(items) + 1))
    for item in items:
        assert tuple(item.parts) == PARTS
        assert sum(item.parts.values()) == pytest.approx(item.score, abs=1e-9)
        assert item.parts[item.reason.kind.value] == max(item.parts.values())
        assert item.reason.text


@given(st.integers(0, 5), queries())
def test_the_score_is_the_formula(seed: int, query: Query) -> None:
    catalogue, neighbours = random_world(seed)
    settings = RankingSettings(diversity=0.0, top_k=50, candidates=50)
    expected = naive_scores(catalogue, neighbours, query, settings)
    (items,) = rank_batch(catalogue, neighbours, [query], settings)
    for item in items:
        assert item.score == pytest.approx(expected[item.item_id], abs=2e-3)  # the grid's rounding
    scores = [item.score for item in items]
    assert scores == sorted(scores, reverse=True)


def naive_scores(
    catalogue: Catalogue, neighbours: Neighbours, query: Query, settings: RankingSettings
) -> dict[str, float]:
    order = list(dict.fromkeys(entry.item_id for entry in query.recent))[: settings.recent_items]
    strongest = {n: max(e.weight for e in query.recent if e.item_id == n) for n in order}
    decayed = {n: strongest[n] * settings.recent_decay**age for age, n in enumerate(order)}
    total = sum(decayed.values()) or 1.0
    vector = {name: catalogue.matrix[row].astype(float) for name, row in catalogue.row_of.items()}
    scores = {}
    for row, name in enumerate(catalogue.ids):
        score = settings.popularity * float(neighbours.popularity[row])
        if query.profile is not None:
            score += settings.profile * float(query.profile @ vector[name])
        for other, weight in decayed.items():
            if other in vector and other != name:
                score += settings.recent * weight / total * float(vector[other] @ vector[name])
            columns, values = neighbours.of(other)
            score += settings.cooccurrence * weight / total * float(values[columns == row].sum())
        scores[name] = score
    return scores


def test_every_part_has_a_weight_and_a_reason_of_its_name() -> None:
    assert set(PARTS) == {kind.value for kind in ReasonKind}
    assert set(PARTS) <= set(RankingSettings.model_fields)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_on_the_page_with_its_weight_and_its_reason(part: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "ranking.md").read_text()
    assert f"| `{part}` | `ranking.{part}` (" in page
    assert page.count(f"\n| `{part}` |") == 2


def ids(items: tuple[RecommendedItem, ...]) -> list[str]:
    return [item.item_id for item in items]


def test_equal_scores_go_by_item_id() -> None:
    catalogue = catalogue_of(np.repeat(unit(1), len(NAMES), axis=0))
    settings = RankingSettings(diversity=0.0, top_k=5, candidates=5)
    query = Query("u", [Recent("i39", 1.0, "e")], hidden=frozenset({"i01"}))
    (items,) = rank_batch(catalogue, align(None, catalogue), [query], settings)
    assert ids(items) == ["i00", "i02", "i03", "i04", "i05"]


def test_a_user_of_whom_nothing_is_known_gets_what_is_popular() -> None:
    catalogue = catalogue_of(unit(1, 40))
    neighbours = align(snapshot_of({}, {"i07": 9.0, "i03": 90.0}), catalogue)
    (items,) = rank_batch(catalogue, neighbours, [Query("new")], EXACT)
    assert ids(items)[:3] == ["i03", "i07", "i00"]
    assert items[0].reason.kind is ReasonKind.POPULARITY
    assert (items[0].reason.text, items[0].reason.users) == ("Chosen by 40 people", 40)
    assert items[2].reason.text.startswith("Fills the list")
    assert items[0].score == pytest.approx(EXACT.popularity)


def test_a_new_item_is_reached_by_its_text() -> None:
    vectors = unit(1, 40)
    vectors[30] = vectors[2]
    catalogue = catalogue_of(vectors)
    neighbours = align(snapshot_of({}, {"i07": 9.0}), catalogue)
    (items,) = rank_batch(catalogue, neighbours, [Query("u", [Recent("i02", 1.0, "e")])], EXACT)
    assert ids(items)[0] == "i30"
    assert items[0].reason.text == "Similar to Item i02"
    assert items[0].reason.evidence == ("e",)


def test_an_item_says_nothing_about_itself() -> None:
    catalogue = catalogue_of(unit(1, 40))
    (items,) = rank_batch(
        catalogue, align(None, catalogue), [Query("u", [Recent("i02", 1.0, "e")])], EXACT
    )
    assert ids(items)[0] != "i02"


def test_what_was_had_together_is_given_as_the_reason() -> None:
    catalogue = catalogue_of(unit(1, 40))
    neighbours = align(snapshot_of({"i02": {"i09": 0.9}, "i04": {"i09": 0.1}}, {}), catalogue)
    query = Query("u", [Recent("i04", 1.0, "e4"), Recent("i02", 1.0, "e2")])
    (items,) = rank_batch(catalogue, neighbours, [query], EXACT)
    assert ids(items)[0] == "i09"
    assert items[0].reason.text == "12 of 40 who chose Item i02 also chose this"
    assert (items[0].reason.users, items[0].reason.of_users) == (12, 40)
    assert items[0].reason.evidence == ("e2",)


@pytest.mark.parametrize(("both", "users"), [(1, 1), (1, 2), (2, 2), (300, 900)])
def test_a_reason_says_how_many_it_rests_on_and_never_often(both: int, users: int) -> None:
    catalogue = catalogue_of(unit(1, 40))
    snapshot = snapshot_of({"i02": {"i09": 0.9}}, {}, both, users)
    query = Query("u", [Recent("i02", 1.0, "e")])
    (items,) = rank_batch(catalogue, align(snapshot, catalogue), [query], EXACT)
    assert items[0].reason.text == f"{both} of {users} who chose Item i02 also chose this"


def test_popularity_of_one_person_is_no_popularity() -> None:
    catalogue = catalogue_of(unit(1, 40))
    neighbours = align(snapshot_of({}, {"i07": 1.0}, users=1), catalogue)
    (items,) = rank_batch(catalogue, neighbours, [Query("new")], EXACT)
    assert items[0].reason.text == "Chosen by 1 person"


def test_an_item_that_left_the_catalogue_still_speaks_by_its_neighbours() -> None:
    catalogue = catalogue_of(unit(1, 40))
    neighbours = align(snapshot_of({"gone": {"i09": 0.9}}, {}), catalogue)
    (items,) = rank_batch(catalogue, neighbours, [Query("u", [Recent("gone", 1.0, "e")])], EXACT)
    assert ids(items)[0] == "i09"
    assert items[0].reason.text == "12 of 40 who chose gone also chose this"


def test_the_sentence_nearest_to_the_item_is_the_reason() -> None:
    vectors = unit(1, 40)
    catalogue = catalogue_of(vectors)
    sentences = (
        Sentence(text="Likes lamps.", evidence=("e1",), items=("i01",)),
        Sentence(text="Likes mugs.", evidence=("e2", "e3"), items=("i02", "unknown")),
        Sentence(text="Pinned by hand."),
    )
    settings = EXACT.model_copy(update={"profile": 1.0})
    query = Query("u", profile=vectors[2], sentences=sentences)
    (items,) = rank_batch(catalogue, align(None, catalogue), [query], settings)
    assert ids(items)[0] == "i02"
    assert items[0].reason.text == "Likes mugs."
    assert items[0].reason.evidence == ("e2", "e3")


def test_a_profile_without_sentences_is_named_as_a_whole() -> None:
    catalogue = catalogue_of(unit(1, 40))
    query = Query("u", profile=unit(9)[0])
    (items,) = rank_batch(catalogue, align(None, catalogue), [query], EXACT)
    assert items[0].reason.text == "Matches the profile as a whole"


def test_diversity_puts_near_copies_apart() -> None:
    vectors = unit(1, 40)
    vectors[11:15] = vectors[10]
    catalogue = catalogue_of(vectors)
    query = Query("u", [Recent("i14", 1.0, "e")])
    world = (catalogue, align(None, catalogue), [query])
    (plain,) = rank_batch(*world, RankingSettings(diversity=0.0, top_k=4))
    (varied,) = rank_batch(*world, RankingSettings(diversity=0.5, top_k=4))
    assert ids(plain) == ["i10", "i11", "i12", "i13"]
    assert ids(varied)[0] == "i10"
    assert len({"i10", "i11", "i12", "i13"}.intersection(ids(varied))) == 1


def test_what_came_last_weighs_most_and_repeats_do_not_add_up() -> None:
    vectors = unit(1, 40)
    vectors[20], vectors[21] = vectors[0], vectors[1]
    catalogue = catalogue_of(vectors)
    recent = [Recent("i00", 1.0, "e0"), *(Recent("i01", 1.0, f"e{n}") for n in range(1, 9))]
    (items,) = rank_batch(catalogue, align(None, catalogue), [Query("u", recent)], EXACT)
    assert ids(items).index("i20") < ids(items).index("i21")


def test_what_was_had_at_one_moment_has_one_age() -> None:
    settings = RankingSettings(recent_decay=0.5)
    recent = [Recent("a", 1.0, "1", 9), Recent("b", 1.0, "2", 9), Recent("c", 1.0, "3", 5)]
    shares = [share.share for share in shares_of(recent, settings)]
    assert shares == pytest.approx([0.4, 0.4, 0.2])
    apart = [entry._replace(moment=None) for entry in recent]
    assert [share.share for share in shares_of(apart, settings)] == pytest.approx(
        [4 / 7, 2 / 7, 1 / 7]
    )


def test_a_profile_of_another_dimension_is_refused() -> None:
    catalogue = catalogue_of(unit(1, 40))
    query = Query("ann", profile=np.ones(3, np.float32))
    with pytest.raises(VectorIndexError, match="ann"):
        rank_batch(catalogue, align(None, catalogue), [query], EXACT)


def test_without_items_there_is_nothing_to_recommend() -> None:
    empty = Catalogue.empty()
    assert rank_batch(empty, align(None, empty), [Query("u")], EXACT) == [()]


@given(st.integers(0, 5), st.lists(queries(), min_size=1, max_size=4))
def test_searched_candidates_give_the_same_list_when_they_hold_the_best(
    seed: int, users: list[Query]
) -> None:
    catalogue, neighbours = random_world(seed)
    index = MemoryIndex()
    rows = zip(catalogue.ids, catalogue.matrix, strict=True)
    index.upsert("items@r", [VectorRow(name, vector, name, 0, {}) for name, vector in rows])
    settings = RankingSettings(exact_up_to=10, candidates=40)
    found = search_candidates(index, "items@r", catalogue, neighbours, users, settings)
    assert found is not None
    searched = rank_batch(catalogue, neighbours, users, settings, found)
    assert searched == rank_batch(catalogue, neighbours, users, settings)


def test_a_small_catalogue_is_scored_whole() -> None:
    catalogue, neighbours = random_world(0)
    index = MemoryIndex()
    assert search_candidates(index, "items@r", catalogue, neighbours, [Query("u")], EXACT) is None


def test_only_candidates_are_ranked() -> None:
    catalogue, neighbours = random_world(0)
    rows = [np.array([3, 7, 9])]
    (items,) = rank_batch(catalogue, neighbours, [Query("u")], EXACT, rows)
    assert sorted(ids(items)) == ["i03", "i07", "i09"]


def only(part: str) -> RankingSettings:
    weights = dict.fromkeys(PARTS, 0.0)
    return RankingSettings(**{**weights, part: 1.0}, diversity=0.0, top_k=50, candidates=50)


def score_of(world: tuple[Catalogue, Neighbours], query: Query, item: str, part: str) -> float:
    (items,) = rank_batch(*world, [query], only(part))
    return next(one.score for one in items if one.item_id == item)


@given(st.integers(0, 5), queries())
def test_without_the_pair_that_is_named_the_score_is_lower_than_without_any_other(
    seed: int, query: Query
) -> None:
    catalogue, neighbours = random_world(seed)
    item_of = {entry.event_id: entry.item_id for entry in query.recent}
    (items,) = rank_batch(catalogue, neighbours, [query], only("cooccurrence"))
    for item in items:
        if item.parts["cooccurrence"] <= 0:
            continue
        named = item_of[item.reason.evidence[0]]
        without = {
            other: score_of(
                (catalogue, cut(neighbours, other, catalogue.row_of[item.item_id])),
                query,
                item.item_id,
                "cooccurrence",
            )
            for other in set(item_of.values())
        }
        assert without[named] < item.score
        assert without[named] == pytest.approx(min(without.values()), abs=1e-5)
        assert item.reason.users == 12


def cut(neighbours: Neighbours, item: str, row: int) -> Neighbours:
    """As if nobody had chosen `item` and the catalogue's `row` together."""
    place = neighbours.row_of.get(item)
    values = neighbours.values.copy()
    if place is not None:
        cells = slice(neighbours.indptr[place], neighbours.indptr[place + 1])
        values[cells][neighbours.columns[cells] == row] = 0.0
    return replace(neighbours, values=values)


@given(st.integers(0, 5), queries())
def test_the_recent_item_that_is_named_contributed_most(seed: int, query: Query) -> None:
    catalogue, neighbours = random_world(seed)
    settings = only("recent")
    item_of = {entry.event_id: entry.item_id for entry in query.recent}
    shares = {share.item_id: share.share for share in shares_of(query.recent, settings)}
    (items,) = rank_batch(catalogue, neighbours, [query], settings)
    for item in items:
        parts = {
            other: share * cosine(catalogue, other, item.item_id)
            for other, share in shares.items()
            if other in catalogue.row_of and other != item.item_id
        }
        if item.reason.evidence:
            named = parts[item_of[item.reason.evidence[0]]]
            assert named > 0
            assert named == pytest.approx(max(parts.values()), abs=1e-6)
        elif item.parts["recent"] > 0:
            assert max(parts.values(), default=0.0) <= 0


def cosine(catalogue: Catalogue, one: str, other: str) -> float:
    rows = [catalogue.row_of[name] for name in (one, other)]
    return float(catalogue.matrix[rows[0]].astype(float) @ catalogue.matrix[rows[1]].astype(float))


@given(st.integers(0, 5), st.lists(st.sampled_from(NAMES), min_size=1, max_size=5), st.data())
def test_a_profile_without_the_sentence_that_is_named_scores_lower(
    seed: int, names: list[str], data: st.DataObject
) -> None:
    catalogue, neighbours = random_world(seed)
    shares = [data.draw(st.floats(0.1, 1.0), label=name) for name in names]
    written = np.array(shares) @ catalogue.matrix[[catalogue.row_of[name] for name in names]]
    sentences = tuple(Sentence(text=f"Likes {name}.", items=(name,)) for name in names)
    query = Query("u", profile=written / np.linalg.norm(written), sentences=sentences)
    (items,) = rank_batch(catalogue, neighbours, [query], only("profile"))
    for item in items:
        if item.parts["profile"] > 0.01 and item.reason.text.startswith("Likes"):
            named = names[[one.text for one in sentences].index(item.reason.text)]
            assert cosine(catalogue, named, item.item_id) > 0


def test_a_sentence_that_is_not_in_the_vector_is_no_reason() -> None:
    """The item is nearest to what the second sentence rests on, but the profile is not."""
    vectors = unit(1, 40)
    vectors[9] = vectors[1] + 1.5 * vectors[2]
    vectors[9] /= np.linalg.norm(vectors[9])
    catalogue = catalogue_of(vectors)
    sentences = (
        Sentence(text="Likes lamps.", items=("i01",)),
        Sentence(text="Likes mugs.", items=("i02",)),
    )
    query = Query("u", profile=vectors[1], sentences=sentences)
    (items,) = rank_batch(catalogue, align(None, catalogue), [query], only("profile"))
    reasons = {item.item_id: item.reason.text for item in items}
    assert reasons["i09"] == "Likes lamps."


@given(st.integers(0, 20), st.lists(st.floats(0.0, 2.0), min_size=1, max_size=8))
def test_sentence_weights_are_what_the_profile_was_made_of(seed: int, made: list[float]) -> None:
    sentences = unit(seed, len(made)).astype(float)
    profile = np.array(made) @ sentences
    found = sentence_weights(profile, sentences)
    assert (found >= 0).all()
    assert found @ sentences == pytest.approx(profile, abs=1e-2)

"""Contrastive training: what it learns, counts, keeps and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.engines.embedder import SentenceEmbedder
from models.errors import TrainingError
from models.settings import EmbedderSettings
from models.training_settings import ContrastiveSettings
from tests.trainer.corpora import bought, corpus_of, items
from tests.trainer.learning.tiny_embedder import tiny_embedder
from trainer.learning import contrastive
from trainer.learning.contrastive import ContrastiveResult, Embed, mine, train_embedder
from trainer.learning.pairs import Draw, Pair, draw, negatives_of, pairs_of, shares
from trainer.learning.text_tower import TextTower

TASTES = ("tea", "cat", "lace", "tin", "felt", "soap")
ITEMS = {
    f"{taste}-{n}": f"thing {n} {goods}"
    for taste, goods in zip(TASTES, ("mug", "bowl", "veil", "box", "hat", "dish"), strict=True)
    for n in "12"
}
WORDS = (*TASTES, "likes", "thing", "1", "2", "mug", "bowl", "veil", "box", "hat", "dish")
PAIRS = [Pair(f"likes {taste}", (f"{taste}-1", f"{taste}-2"), frozenset()) for taste in TASTES] * 4
FAST = ContrastiveSettings(
    learning_rate=1e-2, batch=12, steps=40, temperature=0.2, validate_every=20, checkpoint_every=5
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("tiny"), WORDS)


def train(base: Path, folder: Path, **changes: object) -> ContrastiveResult:
    return train_embedder(PAIRS, ITEMS, base, FAST.model_copy(update=changes), folder)


def hits(embed: Embed) -> float:
    """Share of tastes whose two things are nearest to them."""
    items = embed(list(ITEMS.values()))
    profiles = embed([f"likes {taste}" for taste in TASTES])
    nearest = np.argsort(-(profiles @ items.T), axis=1)[:, :2] // 2
    return float(np.mean(nearest == np.arange(len(TASTES))[:, None]))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="logq"),
        pytest.param({"logq": False, "symmetric": True}, id="symmetric, no logq"),
        pytest.param({"matryoshka": (8,)}, id="matryoshka"),
        pytest.param({"hard_negatives": 2}, id="hard negatives"),
    ],
)
def test_texts_come_near_to_what_came_next(
    base: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    before = hits(SentenceEmbedder(base, EmbedderSettings()).embed)

    result = train(base, tmp_path, **changes)

    assert hits(SentenceEmbedder(result.embedder, EmbedderSettings()).embed) == 1.0 > before
    assert np.mean(result.losses[-5:]) < 0.5 * np.mean(result.losses[:5])


def test_nested_dimensions_rank_alone(base: Path, tmp_path: Path) -> None:
    result = train(base, tmp_path, matryoshka=(4,), steps=80)
    embed = SentenceEmbedder(result.embedder, EmbedderSettings()).embed

    assert hits(lambda texts: embed(texts)[:, :4]) == 1.0


def test_optimiser_steps_are_those_asked_for(base: Path, tmp_path: Path) -> None:
    told: list[int] = []

    result = train_embedder(
        PAIRS,
        ITEMS,
        base,
        FAST.model_copy(update={"steps": 7}),
        tmp_path,
        on_step=lambda done, _: told.append(done),
    )

    assert (result.steps, len(result.losses), told) == (7, 7, [1, 2, 3, 4, 5, 6, 7])


def test_a_step_that_the_optimiser_did_not_make_is_noticed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = iter([True, False, True])
    step = contrastive.torch.optim.AdamW.step
    monkeypatch.setattr(
        contrastive.torch.optim.AdamW, "step", lambda self: step(self) if next(made) else None
    )

    with pytest.raises(TrainingError, match="made 1 steps where 2 were counted"):
        train(base, tmp_path, steps=3)


def test_a_killed_run_goes_on_with_the_same_losses_and_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = train(base, tmp_path / "unbroken", steps=14)

    def killed_at_twelve(pairs: object, batch: int, step: int, seed: int) -> Draw:
        if step == 11:
            raise KeyboardInterrupt
        return draw(PAIRS, batch, step, seed)

    with monkeypatch.context() as patched:
        patched.setattr(contrastive, "draw", killed_at_twelve)
        with pytest.raises(KeyboardInterrupt):
            train(base, tmp_path / "killed", steps=14)
    resumed = train(base, tmp_path / "killed", steps=14)

    assert resumed.losses == unbroken.losses
    weights = [result.embedder / "model.safetensors" for result in (resumed, unbroken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    lines = [
        (result.embedder.parent / "contrastive.jsonl").read_text().count("\n")
        for result in (resumed, unbroken)
    ]
    assert lines == [14, 14]


def test_the_best_validation_is_kept(base: Path, tmp_path: Path) -> None:
    values, seen = iter([0.1, 0.5, 0.3]), []

    def validate(embed: Embed) -> float:
        seen.append(embed(["likes tea"]))
        return next(values)

    result = train_embedder(PAIRS, ITEMS, base, FAST, tmp_path, validate=validate)

    assert (result.best_step, result.validations) == (20, {0: 0.1, 20: 0.5, 40: 0.3})
    kept = SentenceEmbedder(result.embedder, EmbedderSettings()).embed(["likes tea"])
    np.testing.assert_allclose(kept, seen[1], atol=1e-5)


def test_training_that_only_harms_leaves_the_base(base: Path, tmp_path: Path) -> None:
    values = iter([0.9, 0.5, 0.3])

    result = train_embedder(PAIRS, ITEMS, base, FAST, tmp_path, validate=lambda _: next(values))

    embedders = [SentenceEmbedder(path, EmbedderSettings()) for path in (result.embedder, base)]
    assert result.best_step == 0
    np.testing.assert_array_equal(*(one.embed(["likes cat", "thing 1"]) for one in embedders))


def test_a_checkpoint_of_other_pairs_is_refused(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path, steps=2)

    with pytest.raises(TrainingError, match="another run"):
        train_embedder(PAIRS[1:], ITEMS, base, FAST.model_copy(update={"steps": 2}), tmp_path)


def test_one_pair_is_nothing_to_contrast(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="needs two pairs, there are 1"):
        train_embedder(PAIRS[:1], ITEMS, base, FAST, tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not finite; lower train\.contrastive"):
        train(base, tmp_path, learning_rate=1e30, warmup=0.0)


def test_texts_are_pooled_as_in_service(base: Path) -> None:
    texts = ["likes tea", "thing 1 mug", "hat", "likes likes likes likes soap 2"] * 9
    tower = TextTower(base, FAST)

    served = SentenceEmbedder(base, EmbedderSettings()).embed(texts)

    np.testing.assert_allclose(tower.embed(texts), served, atol=1e-5)


def test_a_pass_has_every_pair_once_and_a_step_depends_on_its_number_only() -> None:
    pairs = [Pair(str(n), ("a", "b"), frozenset()) for n in range(10)]

    one_pass = [draw(pairs, 5, step, seed=1) for step in range(2)]

    assert sorted(row for drawn in one_pass for row in drawn.rows) == list(range(10))
    assert draw(pairs, 5, 1, seed=1) == one_pass[1]
    assert draw(pairs, 5, 2, seed=1).rows != one_pass[0].rows


def test_a_pairs_other_next_items_are_not_its_negatives() -> None:
    pairs = [Pair("x", ("a", "b"), frozenset({"c"})), Pair("y", ("b",), frozenset())]
    drawn = (draw(pairs, 2, step, 0) for step in range(50))
    batch = next(one for one in drawn if set(one.positives) == {"a", "b"})

    allowed = negatives_of(pairs, batch, None).allowed

    own = batch.rows.index(0)
    assert not allowed[own].any()
    assert allowed[1 - own].tolist() == [column == own for column in range(2)]


def test_items_had_before_are_positives_only_where_they_are_ranked() -> None:
    catalogue = items("tea", "cat", "pin", "mat")
    days = enumerate(("tea", "cat", "pin", "tea", "mat", "mat"))
    corpus = corpus_of([bought("ann", item, day) for day, item in days], catalogue)
    told = [replace(one, targets=("tea", "mat", "gone")) for one in corpus.sessions.train[-1:]]

    (ranked,) = pairs_of(corpus, told, lambda _: "text", mask_seen=False)
    (left_out,) = pairs_of(corpus, told, lambda _: "text", mask_seen=True)

    assert (ranked.positives, left_out.positives) == (("tea", "mat"), ("mat",))
    assert ranked.had == left_out.had == {"tea", "cat", "pin"}
    had = [replace(one, targets=("tea",)) for one in told]
    assert pairs_of(corpus, had, lambda _: "text", mask_seen=True) == []


def test_shares_of_positives_add_up_to_one() -> None:
    pairs = [Pair("x", ("a", "b"), frozenset()), Pair("y", ("b",), frozenset())]

    assert shares(pairs) == {"a": 0.25, "b": 0.75}


def test_hard_negatives_are_the_nearest_below_the_positive() -> None:
    items = np.eye(6, dtype=np.float32)
    profile = np.array([[0.8, 0.79, 0.6, 0.5, 0.4, 0.7]], np.float32)
    # positive 0; 5 was had; 1 is above .95 × .8 = .76

    found = mine(profile, items, [np.array([0])], [np.array([5])], count=2, below=0.95)

    assert [rows.tolist() for rows in found] == [[2, 3]]


def test_a_positive_that_the_model_does_not_know_gives_no_hard_negatives() -> None:
    items, profile = np.eye(3, dtype=np.float32), np.array([[-0.1, -0.5, 0.4]], np.float32)

    found = mine(profile, items, [np.array([0])], [np.array([], int)], count=2, below=0.95)

    assert [rows.tolist() for rows in found] == [[]]

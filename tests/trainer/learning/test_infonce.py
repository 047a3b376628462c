"""InfoNCE against arithmetic written out, and what must hold for any vectors."""

from __future__ import annotations

from math import exp, log, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.learning.infonce import (
    HardNegatives,
    Negatives,
    allowed_negatives,
    contrastive_loss,
    info_nce,
    log_draw_probabilities,
)

EVERY_OTHER = Negatives(~torch.eye(2, dtype=torch.bool))
PROFILES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
ITEMS = torch.tensor([[0.6, 0.8], [0.0, 1.0]])


def unit(*shape: int, seed: int = 0) -> Tensor:
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=-1, keepdim=True)


def test_two_pairs_by_hand() -> None:
    # cosines: profile 0 with its item .6, with the other 0; profile 1 with its item 1, other .8
    first = -log(exp(0.6 / 0.5) / (exp(0.6 / 0.5) + exp(0.0 / 0.5)))
    second = -log(exp(1.0 / 0.5) / (exp(1.0 / 0.5) + exp(0.8 / 0.5)))

    loss = info_nce(PROFILES, ITEMS, EVERY_OTHER, temperature=0.5)

    assert loss.item() == pytest.approx((first + second) / 2)


def test_the_other_direction_by_hand() -> None:
    # item 0 with its profile .6, with the other .8; item 1 with its profile 1, with the other 0
    first = -log(exp(0.6) / (exp(0.6) + exp(0.8)))
    second = -log(exp(1.0) / (exp(1.0) + exp(0.0)))
    one_way = contrastive_loss(PROFILES, ITEMS, EVERY_OTHER, temperature=1.0)

    both = contrastive_loss(PROFILES, ITEMS, EVERY_OTHER, temperature=1.0, symmetric=True)

    assert both.item() == pytest.approx((one_way.item() + (first + second) / 2) / 2)


def test_log_q_by_hand() -> None:
    # shares: a .5, b .2, the rest of the catalogue .3. Row 0 (positive a) draws b with
    # Q = .2 / (1 - .5) = .4; row 1 (positive b) draws a with Q = .5 / (1 - .2) = .625.
    log_q = log_draw_probabilities(["a", "b"], [set(), set()], {"a": 0.5, "b": 0.2, "c": 0.3})
    first = -log(exp(0.6) / (exp(0.6) + exp(0.0) / 0.4))
    second = -log(exp(1.0) / (exp(1.0) + exp(0.8) / 0.625))

    loss = info_nce(PROFILES, ITEMS, Negatives(EVERY_OTHER.allowed, log_q), temperature=1.0)

    assert loss.item() == pytest.approx((first + second) / 2)


def test_what_a_user_had_cannot_be_drawn() -> None:
    shares = {"a": 0.5, "b": 0.2, "c": 0.3}

    log_q = log_draw_probabilities(["a", "b"], [{"c"}, set()], shares)

    assert log_q[0, 1].item() == pytest.approx(log(0.2 / (1 - 0.5 - 0.3)))


def test_a_user_who_had_everything_gives_a_finite_loss() -> None:
    shares = {"a": 0.5, "b": 0.5}
    log_q = log_draw_probabilities(["a", "b"], [{"b"}, {"a"}], shares)
    allowed = allowed_negatives(["a", "b"], [{"b"}, {"a"}])

    loss = info_nce(PROFILES, ITEMS, Negatives(allowed, log_q), temperature=0.05)

    assert loss.item() == 0.0


def test_the_corrected_sum_is_an_unbiased_estimate_of_the_catalogue() -> None:
    # One negative per row, every possible draw weighted with its probability.
    shares = {"p": 0.1, "a": 0.6, "b": 0.05, "c": 0.25}
    names, others = list(shares), ["a", "b", "c"]
    vectors = dict(zip(names, unit(4, 3), strict=True))
    anchor = unit(1, 3, seed=1)

    def estimate(negative: str) -> float:
        """exp(loss) − 1, times exp(f(p)): the sum that stands for the negatives."""
        rows = torch.cat([anchor, anchor])
        columns = torch.stack([vectors["p"], vectors[negative]])
        log_q = log_draw_probabilities(["p", negative], [set(), set()], shares)
        allowed = torch.tensor([[False, True], [False, False]])
        loss = 2 * info_nce(rows, columns, Negatives(allowed, log_q), temperature=1.0)
        return (exp(loss.item()) - 1) * exp((anchor @ vectors["p"]).item())

    expected = sum(exp((anchor @ vectors[name]).item()) for name in others)

    assert sum(shares[n] / 0.9 * estimate(n) for n in others) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_is_that_of_the_papers_stopped_factor() -> None:
    names = ["a", "b", "c", "d"]
    allowed = allowed_negatives(names, [set()] * 4)
    shares = dict(zip(names, (0.4, 0.3, 0.2, 0.1), strict=True))
    log_q = log_draw_probabilities(names, [set()] * 4, shares)
    anchors, items = unit(4, 5).requires_grad_(), unit(4, 5, seed=1)

    (own,) = torch.autograd.grad(
        info_nce(anchors, items, Negatives(allowed, log_q), temperature=0.3), anchors
    )
    logits = anchors @ items.T / 0.3
    weighted = (logits - log_q - log(3)).masked_fill(~allowed, -torch.inf)
    positive, rest = logits.diagonal(), weighted.logsumexp(dim=1)
    wrong = 1 - positive.exp() / (positive.exp() + rest.exp())  # 1 − P(v)
    (papers,) = torch.autograd.grad((wrong.detach() * (rest - positive)).mean(), anchors)

    torch.testing.assert_close(own, papers)


def test_duplicates_of_the_positive_and_what_was_had_are_no_negatives() -> None:
    allowed = allowed_negatives(["a", "b", "a"], [{"b"}, set(), set()])

    assert allowed.tolist() == [
        [False, False, False],  # itself, had, the same item
        [True, False, True],
        [False, True, False],
    ]


def test_without_negatives_there_is_nothing_to_lose() -> None:
    nothing = Negatives(torch.zeros(2, 2, dtype=torch.bool))

    assert info_nce(PROFILES, ITEMS, nothing, temperature=0.1).item() == 0.0


def test_hard_negatives_by_hand() -> None:
    # row 0: one hard negative with cosine .8; row 1: none found
    hard = HardNegatives(
        torch.tensor([[[0.8, 0.6]], [[1.0, 0.0]]]), torch.tensor([[True], [False]])
    )
    first = -log(exp(0.6) / (exp(0.6) + exp(0.0) + exp(0.8)))
    second = -log(exp(1.0) / (exp(1.0) + exp(0.8)))

    loss = info_nce(PROFILES, ITEMS, EVERY_OTHER, 1.0, hard)

    assert loss.item() == pytest.approx((first + second) / 2)


def test_nested_dimensions_are_the_mean_of_the_cut_vectors() -> None:
    profiles, items = unit(3, 4), unit(3, 4, seed=1)
    negatives = Negatives(~torch.eye(3, dtype=torch.bool))

    nested = contrastive_loss(profiles, items, negatives, temperature=0.2, matryoshka=(2,))

    full = contrastive_loss(profiles, items, negatives, temperature=0.2)
    cut = contrastive_loss(profiles[:, :2], items[:, :2], negatives, temperature=0.2)
    assert nested.item() == pytest.approx((full.item() + cut.item()) / 2)


def test_lengths_of_vectors_do_not_matter() -> None:
    plain = contrastive_loss(PROFILES, ITEMS, EVERY_OTHER, temperature=0.3)
    longer = contrastive_loss(7 * PROFILES, sqrt(2) * ITEMS, EVERY_OTHER, temperature=0.3)

    assert longer.item() == pytest.approx(plain.item())


@given(st.permutations(range(5)), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_the_order_of_pairs_does_not_matter(order: list[int], seed: int) -> None:
    names = ["a", "b", "a", "c", "d"]
    had: list[set[str]] = [{"c"}, set(), {"d", "b"}, set(), {"a"}]
    shares = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
    profiles, items = unit(5, 6, seed=seed), unit(5, 6, seed=seed + 1)

    def loss(rows: list[int]) -> float:
        positives, known = [names[row] for row in rows], [had[row] for row in rows]
        negatives = Negatives(
            allowed_negatives(positives, known), log_draw_probabilities(positives, known, shares)
        )
        chosen = torch.tensor(rows)
        return contrastive_loss(
            profiles[chosen], items[chosen], negatives, temperature=0.1, symmetric=True
        ).item()

    assert loss(order) == pytest.approx(loss(list(range(5))), rel=1e-4, abs=1e-5)

"""SASRec: the loss of the whole catalogue, causality, and what training finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from torch.nn import functional

from models.errors import TrainingError
from models.training_settings import SasrecSettings
from trainer.learning import sasrec
from trainer.learning.sasrec import ItemNumbers, Sasrec, full_softmax_loss
from trainer.learning.sasrec_training import (
    NextItems,
    batches,
    refit_sasrec,
    train_sasrec,
    training_pieces,
)

SMALL = SasrecSettings(
    width=16, layers=1, dropout=0.1, max_length=6, batch=8, learning_rate=0.01, epochs=6
)
ITEMS = 9


def rings(users: int, length: int) -> list[ItemNumbers]:
    """Users who take items in the order of their numbers, from some start: 7, 8, 0, 1, …"""
    return [np.arange(start, start + length) % ITEMS for start in range(users)]


def next_of(sequences: list[ItemNumbers]) -> NextItems:
    targets = np.array([sequence[-1] for sequence in sequences])
    return NextItems([sequence[:-1] for sequence in sequences], targets, cutoff=10)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_loss_and_its_gradients_are_those_of_cross_entropy(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sasrec, "CHUNK", chunk)
    torch.manual_seed(0)
    hidden, items = torch.randn(7, 4) * 3, torch.randn(11, 4)
    targets = torch.tensor([0, 10, 3, 3, 5, 1, 0])

    mine = [hidden.clone().requires_grad_(), items.clone().requires_grad_()]
    loss = full_softmax_loss(*mine, targets)
    (2 * loss).backward()
    theirs = [hidden.clone().requires_grad_(), items.clone().requires_grad_()]
    expected = functional.cross_entropy(theirs[0] @ theirs[1].T, targets)
    (2 * expected).backward()

    torch.testing.assert_close(loss, expected)
    for own, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_the_loss_of_equal_scores_is_the_logarithm_of_the_number_of_items() -> None:
    loss = full_softmax_loss(torch.zeros(2, 4), torch.randn(8, 4), torch.tensor([1, 7]))

    assert loss.item() == pytest.approx(np.log(8))


def test_low_precision_products_stay_near_the_exact_loss() -> None:
    torch.manual_seed(0)
    hidden, items, targets = torch.randn(50, 16), torch.randn(40, 16), torch.arange(40)[:40]

    exact = full_softmax_loss(hidden[:40], items, targets)
    low = full_softmax_loss(hidden[:40], items, targets, torch.bfloat16)

    assert low.item() == pytest.approx(exact.item(), rel=0.01)


def test_states_know_nothing_of_what_follows() -> None:
    network = Sasrec(ITEMS, SMALL).eval()
    before = network(torch.tensor([[1, 2, 3, 4]]))
    after = network(torch.tensor([[1, 2, 3, 8]]))

    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_a_score_does_not_depend_on_who_else_is_scored() -> None:
    network = Sasrec(ITEMS, SMALL).eval()
    histories = [np.array([3]), np.arange(9), np.array([], np.int64), np.array([5, 1])]

    together = network.scores(histories)

    for row, history in zip(together, histories, strict=True):
        torch.testing.assert_close(row, network.scores([history])[0])
    assert together[2].tolist() == [0.0] * ITEMS


def test_only_the_newest_items_count() -> None:
    network = Sasrec(ITEMS, SMALL).eval()
    newest = np.array([1, 2, 3, 4, 5, 6])

    torch.testing.assert_close(
        network.scores([np.concatenate([[8, 8, 7], newest])]), network.scores([newest])
    )


def test_every_pair_of_neighbours_is_learned_once() -> None:
    pieces = training_pieces([np.arange(14), np.array([3]), np.array([4, 5])], max_length=6)

    assert [piece.tolist() for piece in pieces] == [
        [0, 1, 2, 3, 4, 5, 6],
        [6, 7, 8, 9, 10, 11, 12],
        [12, 13],
        [4, 5],
    ]


def test_an_epoch_has_every_piece_once() -> None:
    pieces = [np.full(length, number) for number, length in enumerate([2, 5, 3, 9, 2, 4, 7])]

    seen = [
        int(piece[0]) for batch in batches(pieces, 3, np.random.default_rng(1)) for piece in batch
    ]

    assert sorted(seen) == list(range(7))


def test_training_finds_the_order_of_the_items(tmp_path: Path) -> None:
    validate = next_of(rings(9, 5))
    settings = SMALL.model_copy(update={"epochs": 25})

    network, _ = train_sasrec(rings(40, 6), ITEMS, validate, settings, tmp_path)

    assert network.scores([np.array([2, 3, 4])]).argmax().item() == 5
    assert validate(network)["ndcg@10"] > 0.95


def losses(folder: Path) -> list[float]:
    lines = (folder / "epochs.jsonl").read_bytes().splitlines()
    return [orjson.loads(line)["loss"] for line in lines]


def test_a_refit_repeats_the_training_as_far_as_it_is_told(tmp_path: Path) -> None:
    sequences, validate = rings(20, 6), next_of(rings(9, 5))
    train_sasrec(sequences, ITEMS, validate, SMALL, tmp_path / "validated")

    _, epoch = refit_sasrec(sequences, ITEMS, 2, SMALL, tmp_path / "refit")

    assert epoch == 2
    assert losses(tmp_path / "refit") == losses(tmp_path / "validated")[:2]


def test_a_killed_run_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    sequences, settings = rings(20, 6), SMALL.model_copy(update={"epochs": 4, "patience": 9})
    validate, calls = next_of(rings(9, 5)), iter(range(100))

    def killed_in_the_third(network: Sasrec) -> dict[str, float]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return validate(network)

    train_sasrec(sequences, ITEMS, validate, settings, tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        train_sasrec(sequences, ITEMS, killed_in_the_third, settings, tmp_path / "killed")
    train_sasrec(sequences, ITEMS, validate, settings, tmp_path / "killed")

    assert len(losses(tmp_path / "killed")) == 4
    assert losses(tmp_path / "killed") == losses(tmp_path / "unbroken")


def test_training_stops_when_validation_stops_to_rise_and_keeps_the_best(tmp_path: Path) -> None:
    values = iter([0.1, 0.3, 0.2, 0.2, 0.9])
    weights = []

    def validate(network: Sasrec) -> dict[str, float]:
        weights.append(network.items.weight.detach().clone())
        return {"ndcg@10": next(values)}

    settings = SMALL.model_copy(update={"patience": 2})
    network, epoch = train_sasrec(rings(20, 6), ITEMS, validate, settings, tmp_path)

    assert (len(weights), epoch) == (4, 2)
    torch.testing.assert_close(network.items.weight, weights[1], rtol=0, atol=0)


def test_a_finished_run_is_read_back(tmp_path: Path) -> None:
    values = iter([0.1, 0.3, 0.2, 0.2])
    settings = SMALL.model_copy(update={"patience": 2})

    found = [
        train_sasrec(rings(20, 6), ITEMS, lambda _: {"ndcg@10": next(values)}, settings, tmp_path)
        for _ in range(2)
    ]

    assert [epoch for _, epoch in found] == [2, 2]
    torch.testing.assert_close(*(one.items.weight for one, _ in found), rtol=0, atol=0)


def test_more_patience_prolongs_a_run_that_had_stopped(tmp_path: Path) -> None:
    values = iter([0.1, 0.3, 0.2, 0.2, 0.9, 0.1])

    epochs = [
        train_sasrec(
            rings(20, 6),
            ITEMS,
            lambda _: {"ndcg@10": next(values)},
            SMALL.model_copy(update={"patience": patience}),
            tmp_path,
        ).epoch
        for patience in (2, 3)
    ]

    assert epochs == [2, 5]


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"epochs": 1})
    train_sasrec(rings(20, 6), ITEMS, next_of(rings(9, 5)), settings, tmp_path)

    with pytest.raises(TrainingError, match="another run"):
        train_sasrec(rings(21, 6), ITEMS, next_of(rings(9, 5)), settings, tmp_path)


def test_users_of_one_item_are_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no user has two items"):
        train_sasrec([np.array([1])], ITEMS, next_of(rings(9, 5)), SMALL, tmp_path)


def test_ranks_leave_out_what_was_seen() -> None:
    network = Sasrec(ITEMS, SMALL).eval()
    scores = network.scores([np.array([4, 2])])[0]
    order = scores.argsort(descending=True).tolist()
    unseen = [item for item in order if item not in (4, 2)]

    masked = NextItems([np.array([4, 2])], np.array([unseen[3]])).ranks(network)
    plain = NextItems([np.array([4, 2])], np.array([unseen[3]]), mask_seen=False).ranks(network)

    assert masked.tolist() == [4]
    assert plain.tolist() == [order.index(unseen[3]) + 1]

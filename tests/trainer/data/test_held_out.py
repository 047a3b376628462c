"""Which users no shipped model was trained on."""

from __future__ import annotations

import hashlib

from trainer.data.held_out import held_out


def test_the_rule_is_the_one_that_the_model_card_states() -> None:
    # sha256("12347") begins with …; a multiple of three or not is all that counts
    for user in ("12347", "13001", "u", "é"):
        first = hashlib.sha256(user.encode()).hexdigest()[:8]
        assert held_out(user) == (int(first, 16) % 3 == 0)


def test_about_a_third_of_users_is_held_out() -> None:
    share = sum(held_out(str(number)) for number in range(3_000)) / 3_000

    assert 0.30 < share < 0.37  # 1/3, three standard deviations of .0086

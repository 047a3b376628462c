"""Profile requests by section, for the tests of targets, warm start and figures."""

from __future__ import annotations

from collections.abc import Sequence

from models.schemas import InteractionType, ProfileRequest
from tests.models.profile_requests import event, request_of


def asked(
    now: Sequence[str] = (),
    current: Sequence[str] = (),
    stable: Sequence[str] = (),
    avoids: Sequence[str] = (),
) -> ProfileRequest:
    """Items bought a day ago, a month ago, half a year ago, and sent back."""
    bought = [(text, 1.0) for text in now]
    bought += [(text, 30.0) for text in current]
    bought += [(text, 180.0) for text in stable]
    entries = [
        event(number, text, days_ago - number / 1_000)  # in the order given
        for number, (text, days_ago) in enumerate(bought)
    ]
    sent_back = [
        event(len(bought) + number, text, 1.0, type=InteractionType.CANCEL)
        for number, text in enumerate(avoids)
    ]
    return request_of(entries, sent_back)

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import TopicError
from models.schemas import Interaction, ProfileEdit
from models.settings import WindowSettings
from streams.tracker.reducer import Arrival, apply_edit, apply_interactions
from streams.tracker.state import (
    CHUNK_LIMIT,
    KNOWN_EDITS,
    TAIL,
    VERSION,
    Head,
    User,
    decode_clock,
    decode_head,
    head_key,
    load,
    store,
)
from streams.windows import EMPTY, advance, entry_of

START = 1_300_000_000_000
SPEC = WindowSettings()


def arrival(number: int, offset: int, time: int | None = None, kind: str = "purchase") -> Arrival:
    found = Interaction(
        event_id=f"event-{number:032}",
        user_id="u",
        item_id=f"item-{number % 7}",
        type=kind,
        timestamp=START + (number if time is None else time) * 1000,
    )
    return Arrival(found, offset, START + offset)


def put(table: dict[bytes, bytes], records) -> int:
    written = 0
    for key, value in records:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
            written += len(key) + len(value)
    return written


def apply(table: dict[bytes, bytes], arrivals: list[Arrival], spec: WindowSettings = SPEC):
    user = load("u", table.get, spec.history_cap)
    inserted = apply_interactions(user, arrivals, spec, Counter())
    return user, list(store(user, inserted))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60)), min_size=1, max_size=300),
    st.integers(1, 120),
    st.lists(st.integers(1, 90), min_size=1),
    st.randoms(use_true_random=False),
)
def test_stored_histories_equal_the_pure_ones_whatever_the_batches_and_crashes(
    numbers, cap, sizes, random
):
    """Disorder, repetition, batches of any size, writes cut anywhere and redelivered."""
    spec = WindowSettings(history_cap=cap)
    arrivals = [arrival(n, offset, time=jitter) for offset, (n, jitter) in enumerate(numbers)]
    table: dict[bytes, bytes] = {}
    begin, turn = 0, 0
    while begin < len(arrivals):
        batch = arrivals[begin : begin + sizes[turn % len(sizes)]]
        _, records = apply(table, batch, spec)
        if random.random() < 0.2:
            put(table, records[: random.randrange(len(records) + 1)])
            _, records = apply(table, batch, spec)
        put(table, records)
        begin, turn = begin + len(batch), turn + 1
    pure = EMPTY
    for one in arrivals:
        pure = advance(pure, entry_of(one.interaction, one.offset), cap)
    assert [e.key for e in load("u", table.get, cap).history] == [e.key for e in pure]


def test_a_redelivered_offset_changes_nothing():
    table: dict[bytes, bytes] = {}
    put(table, apply(table, [arrival(1, 0), arrival(2, 1)])[1])
    before = dict(table)
    user, _ = apply(table, [arrival(1, 0), arrival(2, 1)])
    assert user.head.evidence == 2.0
    assert table == before


def test_in_order_events_write_little_however_long_the_history():
    for length in (20, 500):
        table: dict[bytes, bytes] = {}
        for n in range(length):
            put(table, apply(table, [arrival(n, n)])[1])
        written = [
            put(table, apply(table, [arrival(n, n)])[1]) for n in range(length, length + 200)
        ]
        assert sum(written) / len(written) < 2048


def test_chunks_of_evicted_events_are_deleted():
    spec = WindowSettings(history_cap=50)
    table: dict[bytes, bytes] = {}
    for n in range(1000):
        put(table, apply(table, [arrival(n, n)], spec)[1])
    assert len(table) <= 2 + 50 // (CHUNK_LIMIT - TAIL) + 1


def test_what_is_ignored_leaves_no_trace():
    user, _ = apply({}, [arrival(1, 0, kind="impression")])
    assert (user.history, user.head.evidence, user.head.applied) == (EMPTY, 0.0, -1)


def test_outcomes_are_counted_by_type():
    outcomes: Counter = Counter()
    user = User("u")
    arrivals = [arrival(1, 0), arrival(1, 1), arrival(2, 2, kind="impression")]
    apply_interactions(user, arrivals, SPEC, outcomes)
    assert outcomes == {
        ("purchase", "applied"): 1,
        ("purchase", "duplicate"): 1,
        ("impression", "ignored"): 1,
    }


def edit(action: str, **fields: object) -> ProfileEdit:
    told = " ".join(map(str, fields.values()))
    values = {"edit_id": f"{action} {told}", "user_id": "u", "action": action, "timestamp": START}
    return ProfileEdit.model_validate(values | fields)


def test_edits_are_folded_once_in_order_of_offset():
    user = User("u")
    assert apply_edit(user, edit("pin", text="Likes tea."), 0)
    assert apply_edit(user, edit("forbid", text="gin"), 1)
    assert not apply_edit(user, edit("unpin", text="Likes tea."), 1)
    assert apply_edit(user, edit("replace", section="now", text="On holiday."), 2)
    assert user.head.pinned == ("Likes tea.",)
    assert user.head.forbidden == ("gin",)
    assert user.head.replaced == (("now", "On holiday."),)


def test_an_edit_that_is_sent_again_undoes_nothing_that_came_between():
    user = User("u")
    pairs = (
        (edit("pin", text="Likes tea."), edit("unpin", text="Likes tea.")),
        (edit("forbid", text="gin"), edit("allow", text="gin")),
        (edit("replace", section="now", text="Away."), edit("replace", section="now", text="In.")),
    )
    sent = [one for pair in pairs for one in (*pair, pair[0])]
    told = [apply_edit(user, one, offset) for offset, one in enumerate(sent)]
    assert told == [True, True, False] * 3
    head = user.head
    assert (head.pinned, head.forbidden, head.replaced) == ((), (), (("now", "In."),))
    assert head.edits == 7
    apply_edit(user, edit("forget"), 9)
    assert not apply_edit(user, sent[0], 10)
    assert user.head.pinned == ()


def test_a_wish_to_be_forgotten_is_taken_for_no_other_edit():
    user = User("u")
    assert apply_edit(user, edit("pin", text="Likes tea.", edit_id="1"), 0)
    assert apply_edit(user, edit("forget", edit_id="1"), 1)
    assert not apply_edit(user, edit("forget", edit_id="1"), 2)
    assert user.head.pinned == ()


def test_as_many_edits_are_known_as_a_head_has_room_for():
    user = User("u")
    for number in range(KNOWN_EDITS + 1):
        assert apply_edit(user, edit("allow", text=str(number)), number)
    assert len(user.head.known_edits) == KNOWN_EDITS
    assert not apply_edit(user, edit("allow", text="1"), 1_000)
    assert apply_edit(user, edit("allow", text="0"), 1_001)


def test_a_forgotten_user_keeps_nothing_and_old_events_do_not_come_back():
    table: dict[bytes, bytes] = {}
    for n in range(100):
        put(table, apply(table, [arrival(n, n)])[1])
    user = load("u", table.get, 500)
    apply_edit(user, edit("forget"), 0)
    put(table, store(user, []))
    assert set(table) == {head_key("u")}
    again, _ = apply(table, [arrival(3, 3)])
    assert again.history == EMPTY
    later, _ = apply(table, [arrival(200, 100)])
    assert len(later.history) == 1


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_clock_of_another_version_is_refused_with_what_to_do(version: int) -> None:
    with pytest.raises(TopicError, match="palate rebuild"):
        decode_clock(msgspec.msgpack.encode((version, 0, 0, 0, 0, 0, 0)))


def test_a_clock_of_before_versions_is_refused() -> None:
    with pytest.raises(TopicError, match="palate rebuild"):
        decode_clock(msgspec.msgpack.encode((START, START + 500, 12, 3)))


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_head_of_another_version_is_refused_with_what_to_do(version: int) -> None:
    with pytest.raises(TopicError, match="palate rebuild"):
        decode_head(msgspec.msgpack.encode(Head(version=version)))


def test_a_head_fits_into_one_record_whatever_the_user_pins_and_forbids() -> None:
    user = User("\U0001f600" * 256)
    for number in range(60):
        for offset, action in enumerate(("pin", "forbid")):
            text = f"{number:03}" + "\U0001f600" * 1_997
            edit = ProfileEdit(
                edit_id=f"{action}{number}",
                user_id=user.user_id,
                action=action,
                text=text,
                timestamp=1_300_000_000_000,
            )
            assert apply_edit(user, edit, number * 2 + offset)
    for number in reversed(range(500)):
        event = Interaction(
            event_id=f"{number:03}" + "\U0001f600" * 253,
            user_id=user.user_id,
            item_id="\U0001f600" * 256,
            type="view",
            timestamp=1_300_000_000_000 + number,
        )
        arrival = Arrival(event, 1_000 - number, 1_300_000_000_000)
        inserted = apply_interactions(user, [arrival], WindowSettings(), Counter())
        records = dict(store(user, inserted))
    assert user.head.pinned[-1].startswith("059")
    assert max(len(value or b"") for value in records.values()) < 2**20 - 10_000

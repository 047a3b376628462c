from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.schemas import Interaction, InteractionType
from models.settings import WindowSettings
from streams.windows import (
    DAY_MS,
    EMPTY,
    HOUR_MS,
    HistoryEntry,
    advance,
    entry_of,
    kept,
    split_by_liking,
    to_windows,
    views,
    windows_hash,
)

NOW = 1_300_000_000_000
SPEC = WindowSettings()


def interaction(
    number: int, kind: str = "purchase", item: str = "i", **fields: object
) -> Interaction:
    values = {"timestamp": NOW + number, "event_id": f"e{number}", "user_id": "u"} | fields
    return Interaction.model_validate(values | {"item_id": item, "type": kind})


def history_of(*interactions: Interaction, cap: int = 500) -> tuple[HistoryEntry, ...]:
    history = EMPTY
    for offset, one in enumerate(interactions):
        history = advance(history, entry_of(one, offset), cap)
    return history


entries = st.builds(
    lambda number: entry_of(interaction(number % 50, event_id=f"e{number}"), number),
    st.integers(0, 200),
)


@given(st.lists(entries, max_size=120), st.integers(1, 40), st.randoms())
def test_order_of_arrival_and_repetition_do_not_matter(found, cap, random):
    history = EMPTY
    for entry in found:
        history = advance(history, entry, cap)
    again = EMPTY
    shuffled = found + random.sample(found, len(found) // 2)
    random.shuffle(shuffled)
    for entry in shuffled:
        again = advance(again, entry, cap)
    naive = tuple(sorted(set(found), key=lambda entry: entry.key))[-cap:]
    assert history == again == naive


def test_an_event_id_sent_again_with_other_content_changes_nothing():
    history = history_of(interaction(1), interaction(2, event_id="e1"))
    assert [entry.timestamp for entry in history] == [NOW + 1]


def test_an_event_older_than_a_full_history_is_not_kept():
    full = history_of(interaction(5), interaction(6), cap=2)
    assert advance(full, entry_of(interaction(1), 9), 2) is full


def test_windows_hold_what_is_inside_their_span():
    ages = {"long": 100 * DAY_MS, "medium": 20 * DAY_MS, "short": HOUR_MS}
    made = [interaction(-age, item=name) for name, age in ages.items()]
    found = views(history_of(*made), NOW, SPEC)
    assert [entry.item_id for entry in found.long] == ["long", "medium", "short"]
    assert [entry.item_id for entry in found.medium] == ["medium", "short"]
    assert [entry.item_id for entry in found.short] == ["short"]


def test_the_beginning_of_a_span_is_outside_it():
    edge = interaction(-48 * HOUR_MS)
    assert views(history_of(edge), NOW, SPEC).short == ()
    assert len(views(history_of(edge), NOW - 1, SPEC).short) == 1


def test_events_after_as_of_are_not_seen():
    assert views(history_of(interaction(5)), NOW, SPEC).long == ()


def test_a_cap_keeps_the_newest():
    spec = WindowSettings(short_cap=2)
    found = views(history_of(*(interaction(-n, item=f"i{n}") for n in range(5))), NOW, spec)
    assert [entry.item_id for entry in found.short] == ["i1", "i0"]


def test_a_cancel_and_its_purchase_are_one_dislike_and_no_positive():
    history = history_of(interaction(1), interaction(2), interaction(3, "cancel"))
    liked, avoided = split_by_liking(history, SPEC)
    assert [entry.event_id for entry in liked] == ["e1"]
    assert [entry.event_id for entry in avoided] == ["e3"]


def test_each_cancel_is_matched_to_a_purchase_of_its_own():
    history = history_of(
        interaction(1), interaction(2), interaction(3, "cancel"), interaction(4, "cancel")
    )
    assert split_by_liking(history, SPEC)[0] == ()


def test_a_cancel_without_a_purchase_is_a_dislike_all_the_same():
    liked, avoided = split_by_liking(history_of(interaction(3, "cancel")), SPEC)
    assert (liked, [entry.event_id for entry in avoided]) == ((), ["e3"])


def test_buying_again_takes_a_dislike_back():
    history = history_of(interaction(1), interaction(2, "cancel"), interaction(3))
    liked, avoided = split_by_liking(history, SPEC)
    assert ([entry.event_id for entry in liked], avoided) == (["e3"], ())


def test_low_ratings_and_hidden_items_are_dislikes():
    history = history_of(
        interaction(1, "rating", "a", rating=1),
        interaction(2, "rating", "b", rating=5),
        interaction(3, "hide", "c"),
    )
    liked, avoided = split_by_liking(history, SPEC)
    assert [entry.item_id for entry in liked] == ["b"]
    assert [entry.item_id for entry in avoided] == ["a", "c"]


def test_impressions_stay_out_of_histories_unless_weighted():
    assert not kept(interaction(1, "impression"), SPEC)
    assert kept(interaction(1, "impression"), WindowSettings(weights={"impression": 0.1}))


def test_the_hash_of_windows_covers_the_item_texts():
    found = views(history_of(interaction(-1)), NOW, SPEC)
    one, other = (windows_hash(to_windows(found, lambda _, t=t: t)) for t in ("a", "b"))
    assert one != other


def test_every_type_survives_a_history():
    kinds = list(InteractionType)
    made = [entry_of(interaction(n, kind, rating=4), n) for n, kind in enumerate(kinds)]
    assert [entry.type for entry in made] == kinds

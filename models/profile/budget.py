"""A fair cut: which sentences of a profile fit its token budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest

from models.schemas import Section, Sentence
from models.text import shorten

Draft = Mapping[Section, Sequence[Sentence]]
Cost = Callable[[Draft], int]  # tokens of the text that shows these sentences


def within_tokens(draft: Draft, cost: Cost, max_tokens: int) -> dict[Section, list[Sentence]]:
    """As much of `draft` as costs at most `max_tokens`, in its order.

    Sections take turns, so each keeps its first sentence before any keeps its second. A first
    sentence that is longer than its section's even share is cut short; a later one that does
    not fit is left out.
    """
    kept: dict[Section, list[Sentence]] = {section: [] for section in Section}
    share = max_tokens // max(1, sum(bool(said) for said in draft.values()))
    for section, sentence in _in_turns(draft):
        if not kept[section]:
            sentence = _cut(sentence, partial(_cost_alone, cost, section), share)
        kept[section].append(sentence)
        if not sentence.text or cost(kept) > max_tokens:
            kept[section].pop()
    return kept


def _in_turns(draft: Draft) -> Iterator[tuple[Section, Sentence]]:
    for turn in zip_longest(*(draft.get(section, ()) for section in Section)):
        for section, sentence in zip(Section, turn, strict=True):
            if sentence is not None:
                yield section, sentence


def _cost_alone(cost: Cost, section: Section, sentence: Sentence) -> int:
    return cost({section: [sentence]})


def _cut(sentence: Sentence, cost: Callable[[Sentence], int], share: int) -> Sentence:
    """The longest beginning of `sentence` that costs at most `share`; its text may be empty."""
    if cost(sentence) <= share:
        return sentence
    fits, too_long = 0, len(sentence.text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if cost(_beginning(sentence, middle)) <= share:
            fits = middle
        else:
            too_long = middle
    return _beginning(sentence, fits)


def _beginning(sentence: Sentence, chars: int) -> Sentence:
    return sentence.model_copy(update={"text": shorten(sentence.text, chars).rstrip(" ,;:")})

"""Why an item was recommended: the score part that contributed most, in words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from models.catalogue import Catalogue
from models.neighbours import Neighbours, Rows, Scores
from models.queries import Share
from models.schemas import Reason, ReasonKind, RecommendedItem, Sentence

_KINDS: Final = tuple(ReasonKind)  # in the order of Chosen's parts


class Chosen(NamedTuple):
    """The picked rows of one user, best first, and their weighted score parts, each [picked]."""

    rows: Rows
    profile: Scores
    recent: Scores
    cooccurrence: Scores
    popularity: Scores


def explain(
    catalogue: Catalogue,
    neighbours: Neighbours,
    sentences: Sequence[Sentence],
    shares: Sequence[Share],
    chosen: Chosen,
) -> tuple[RecommendedItem, ...]:
    """The chosen rows as recommended items with parts and reasons."""
    because = _Because(catalogue, neighbours, sentences, shares, chosen.rows)
    names = [kind.value for kind in _KINDS]
    table = np.round(np.stack(chosen[1:], axis=1), 6).tolist()
    items = []
    for place, (row, parts) in enumerate(zip(chosen.rows.tolist(), table, strict=True)):
        best = max(parts)
        kind = _KINDS[parts.index(best)] if best > 0 else ReasonKind.POPULARITY
        items.append(
            RecommendedItem(
                item_id=catalogue.ids[row],
                rank=place + 1,
                score=round(sum(parts), 6),
                parts=dict(zip(names, parts, strict=True)),
                reason=because.reason(kind, place),
            )
        )
    return tuple(items)


class _Because:
    """Finds the sentence or recent item behind a score part; similarities are made when asked."""

    def __init__(
        self,
        catalogue: Catalogue,
        neighbours: Neighbours,
        sentences: Sequence[Sentence],
        shares: Sequence[Share],
        rows: Rows,
    ) -> None:
        self._catalogue = catalogue
        self._neighbours = neighbours
        self._sentences = sentences
        self._shares = shares
        self._rows = rows

    def reason(self, kind: ReasonKind, place: int) -> Reason:
        """Why the item at `place` scored in this part."""
        if kind is ReasonKind.PROFILE:
            return self._of_sentence(place)
        if kind is ReasonKind.POPULARITY:
            return Reason(kind=kind, text="Popular with other people")
        if kind is ReasonKind.RECENT:
            share = self._shares[int(np.argmax(self._similar[:, place]))]
            text = f"Similar to {self._label(share)}"
        else:
            share = self._shares[int(np.argmax(self._together[:, place]))]
            text = f"Often chosen together with {self._label(share)}"
        return Reason(kind=kind, text=text, evidence=(share.event_id,))

    def _of_sentence(self, place: int) -> Reason:
        if not self._sentences:
            return Reason(kind=ReasonKind.PROFILE, text="Matches the profile as a whole")
        best = self._sentences[int(np.argmax(self._supported[:, place]))]
        return Reason(kind=ReasonKind.PROFILE, text=best.text, evidence=best.evidence)

    @cached_property
    def _similar(self) -> Scores:
        """[recent items, picked]: share · cosine; an item is no reason for itself."""
        cosine = self._cosine([share.item_id for share in self._shares])
        for place, share in enumerate(self._shares):
            own = self._rows == self._catalogue.row_of.get(share.item_id, -1)
            cosine[place] = np.where(own, -1.0, share.share * cosine[place])
        return cosine

    @cached_property
    def _together(self) -> Scores:
        """[recent items, picked]: share · co-occurrence."""
        together = np.zeros((len(self._shares), len(self._rows)))
        for place, share in enumerate(self._shares):
            columns, values = self._neighbours.of(share.item_id)
            match, found = np.nonzero(self._rows[:, None] == columns)
            together[place, match] = share.share * values[found]
        return together

    @cached_property
    def _supported(self) -> Scores:
        """[sentences, picked]: largest cosine to an item that the sentence rests on."""
        supported = np.full((len(self._sentences), len(self._rows)), -1.0)
        for place, sentence in enumerate(self._sentences):
            if sentence.items:
                supported[place] = self._cosine(sentence.items).max(axis=0)
        return supported

    def _cosine(self, items: Sequence[str]) -> Scores:
        """[items, picked]; -1 for items that are not in the catalogue."""
        cosine = np.full((len(items), len(self._rows)), -1.0)
        known = [place for place, item in enumerate(items) if item in self._catalogue.row_of]
        if known:
            rows = [self._catalogue.row_of[items[place]] for place in known]
            cosine[known] = self._catalogue.matrix[rows] @ self._catalogue.matrix[self._rows].T
        return cosine

    def _label(self, share: Share) -> str:
        row = self._catalogue.row_of.get(share.item_id)
        return share.item_id if row is None else self._catalogue.labels[row]

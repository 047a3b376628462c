"""Why an item was recommended: the score part that contributed most, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.catalogue import Catalogue
from models.neighbours import Neighbours, Rows, Scores
from models.queries import Share
from models.schemas import Reason, ReasonKind, RecommendedItem, Sentence


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
    names = [kind.value for kind in ReasonKind]
    table = np.round(np.stack(chosen[1:], axis=1), 6).tolist()
    items = []
    for place, (row, parts) in enumerate(zip(chosen.rows.tolist(), table, strict=True)):
        best = max(parts)
        kind = list(ReasonKind)[parts.index(best)] if best > 0 else ReasonKind.POPULARITY
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
            share = max(self._shares, key=lambda share: self._similarity(share, place))
            text = f"Similar to {self._label(share)}"
        else:
            share = max(self._shares, key=lambda share: self._together(share, place))
            text = f"Often chosen together with {self._label(share)}"
        return Reason(kind=kind, text=text, evidence=(share.event_id,))

    def _of_sentence(self, place: int) -> Reason:
        if not self._sentences:
            return Reason(kind=ReasonKind.PROFILE, text="Matches the profile as a whole")
        best = max(self._sentences, key=lambda sentence: self._support(sentence, place))
        return Reason(kind=ReasonKind.PROFILE, text=best.text, evidence=best.evidence)

    def _support(self, sentence: Sentence, place: int) -> float:
        """Largest cosine between the item and an item that the sentence rests on."""
        return max((self._cosine(item, place) for item in sentence.items), default=-1.0)

    def _similarity(self, share: Share, place: int) -> float:
        if self._catalogue.row_of.get(share.item_id) == self._rows[place]:
            return -1.0  # an item is no reason for itself
        return share.share * self._cosine(share.item_id, place)

    def _cosine(self, item_id: str, place: int) -> float:
        row = self._catalogue.row_of.get(item_id)
        if row is None:
            return -1.0
        return float(self._catalogue.matrix[row] @ self._catalogue.matrix[self._rows[place]])

    def _together(self, share: Share, place: int) -> float:
        columns, values = self._neighbours.of(share.item_id)
        return share.share * float(values[columns == self._rows[place]].sum())

    def _label(self, share: Share) -> str:
        row = self._catalogue.row_of.get(share.item_id)
        return share.item_id if row is None else self._catalogue.labels[row]

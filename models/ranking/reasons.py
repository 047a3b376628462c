"""Why an item was recommended: the score part that contributed most, in words.

Within the part, what is named is what contributed most to it: the recent item with the largest
share · similarity or share · co-occurrence, or the profile's sentence with the largest share in
the cosine (`sentence_weights`). Nothing is named that did not raise the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.ports import Vectors
from models.ranking.catalogue import Catalogue
from models.ranking.neighbours import Neighbours, Rows, Scores
from models.ranking.queries import Share
from models.schemas import Reason, ReasonKind, RecommendedItem, Sentence
from models.text import json_size, within_bytes

_FILLED: Final = Reason(
    kind=ReasonKind.POPULARITY, text="Fills the list: nothing is known yet that speaks for it"
)
# A list of 200 items with the longest ids and reasons fits into one record of a million bytes.
TEXT_BYTES: Final = 1_200
EVIDENCE_BYTES: Final = 1_600
_SWEEPS: Final = 30  # of coordinate descent; sentences are few, and it converges in about ten


class Chosen(NamedTuple):
    """The picked rows of one user, best first, and their weighted score parts, each [picked]."""

    rows: Rows
    profile: Scores
    recent: Scores
    cooccurrence: Scores
    popularity: Scores


PARTS: Final = Chosen._fields[1:]  # names of the parts, of their weights, of their reasons' kinds


class Known(NamedTuple):
    """What of one user the reasons may name."""

    profile: Vectors  # [dimension], zeros without a profile
    sentences: Sequence[Sentence]
    shares: Sequence[Share]


def explain(
    catalogue: Catalogue, neighbours: Neighbours, known: Known, chosen: Chosen
) -> tuple[RecommendedItem, ...]:
    """The chosen rows as recommended items with parts and reasons."""
    because = _Because(catalogue, neighbours, known, chosen.rows)
    table = np.round(np.stack(chosen[1:], axis=1), 6).tolist()
    items = []
    for place, (row, parts) in enumerate(zip(chosen.rows.tolist(), table, strict=True)):
        best = max(parts)
        kind = ReasonKind(PARTS[parts.index(best)])
        items.append(
            RecommendedItem(
                item_id=catalogue.ids[row],
                rank=place + 1,
                score=round(sum(parts), 6),
                parts=dict(zip(PARTS, parts, strict=True)),
                reason=_short(because.reason(kind, place)) if best > 0 else _FILLED,
            )
        )
    return tuple(items)


def _short(reason: Reason) -> Reason:
    """Whatever a profile says, a reason is a line and a few events."""
    text, room, evidence = within_bytes(reason.text, TEXT_BYTES), EVIDENCE_BYTES, []
    for event_id in reason.evidence:
        room -= json_size(event_id) + 1
        if room < 0:
            break
        evidence.append(event_id)
    if text == reason.text and len(evidence) == len(reason.evidence):
        return reason
    return reason.model_copy(update={"text": text, "evidence": tuple(evidence)})


def sentence_weights(profile: NDArray[np.floating], sentences: NDArray[np.floating]) -> Scores:
    """[sentences]: how much of each lies in the profile; none is negative (methods §6.3).

    The profile's vector is that of its whole text. It is taken apart into the directions of its
    sentences, each the mean of the items that it rests on: non-negative least squares, by
    coordinate descent. What is left over belongs to no sentence.
    """
    gram, along = (sentences @ sentences.T).tolist(), (sentences @ profile).tolist()
    weights = [0.0] * len(sentences)
    for _ in range(_SWEEPS):
        for place, row in enumerate(gram):
            if row[place] > 0:
                rest = along[place] - sum(map(float.__mul__, row, weights))
                weights[place] = max(0.0, weights[place] + rest / row[place])
    return np.array(weights)


class _Because:
    """Finds the sentence or recent item behind a score part; similarities are made when asked."""

    def __init__(
        self, catalogue: Catalogue, neighbours: Neighbours, known: Known, rows: Rows
    ) -> None:
        self._catalogue, self._neighbours = catalogue, neighbours
        self._profile, self._sentences, self._shares = known
        self._rows = rows

    def reason(self, kind: ReasonKind, place: int) -> Reason:
        """Why the item at `place` scored in this part."""
        of = {
            ReasonKind.PROFILE: self._of_sentence,
            ReasonKind.RECENT: self._of_recent,
            ReasonKind.COOCCURRENCE: self._of_pair,
            ReasonKind.POPULARITY: self._of_popularity,
        }
        return of[kind](place)

    def _of_recent(self, place: int) -> Reason:
        similar = self._similar[:, place]
        if similar.max() <= 0:  # only the grid's rounding left something of the item itself
            text = "Near to what was chosen lately as a whole"
            return Reason(kind=ReasonKind.RECENT, text=text)
        share = self._shares[int(np.argmax(similar))]
        text = f"Similar to {self._label(share)}"
        return Reason(kind=ReasonKind.RECENT, text=text, evidence=(share.event_id,))

    def _of_pair(self, place: int) -> Reason:
        share = self._shares[int(np.argmax(self._together[:, place]))]
        users, of_users = self._neighbours.support(share.item_id, int(self._rows[place]))
        return Reason(
            kind=ReasonKind.COOCCURRENCE,
            text=f"{users} of {of_users} who chose {self._label(share)} also chose this",
            evidence=(share.event_id,),
            users=users,
            of_users=of_users,
        )

    def _of_sentence(self, place: int) -> Reason:
        supported = self._supported[:, place]
        if not len(supported) or supported.max() <= 0:
            return Reason(kind=ReasonKind.PROFILE, text="Matches the profile as a whole")
        best = self._sentences[int(np.argmax(supported))]
        return Reason(kind=ReasonKind.PROFILE, text=best.text, evidence=best.evidence)

    def _of_popularity(self, place: int) -> Reason:
        users = int(self._neighbours.chosen_by[self._rows[place]])
        people = "1 person" if users == 1 else f"{users} people"
        return Reason(kind=ReasonKind.POPULARITY, text=f"Chosen by {people}", users=users)

    @cached_property
    def _similar(self) -> Scores:
        """[recent items, picked]: share · cosine; an item is no reason for itself."""
        similar = np.full((len(self._shares), len(self._rows)), -np.inf)
        for place, share in enumerate(self._shares):
            row = self._catalogue.row_of.get(share.item_id)
            if row is not None:
                cosine = self._catalogue.matrix[self._rows] @ self._catalogue.matrix[row]
                similar[place] = np.where(self._rows == row, -np.inf, share.share * cosine)
        return similar

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
        """[sentences, picked]: what each sentence adds to the profile's cosine."""
        matrix = self._catalogue.matrix
        vectors = np.zeros((len(self._sentences), self._catalogue.dimension))
        for place, sentence in enumerate(self._sentences):
            rows = [self._catalogue.row_of.get(item, -1) for item in sentence.items]
            known = [row for row in rows if row >= 0]
            if known:
                vectors[place] = matrix[known].mean(axis=0)
        weights = sentence_weights(self._profile, vectors)
        supported: Scores = (weights[:, None] * vectors) @ matrix[self._rows].T
        return supported

    def _label(self, share: Share) -> str:
        row = self._catalogue.row_of.get(share.item_id)
        return share.item_id if row is None else self._catalogue.labels[row]

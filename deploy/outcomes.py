"""What users did after they were given recommendations, computed in DuckDB over the event log.

An interaction of one of the chosen types is *judged* if its user had a list at that time: the
newest list whose `as_of` lies before the interaction's event time, by at most `days`, and that
was made without knowing the interaction (its applied offset is smaller). Of lists with the same
`as_of` the last one made counts. If the interaction names a `recommendation_id`, that list is
taken instead. A *hit* is a judged interaction whose item is on its list; an item counts once per
list. The same interactions are judged against *popularity*: as many items as the list holds,
those with most interactions of the chosen types in the 30 days before the day of the list's
`as_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

OUTCOME_TYPES: Final = ("click", "cart", "purchase")
POPULARITY_DAYS: Final = 30
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Ratio:
    """So many of so many."""

    hits: int
    of: int

    @property
    def rate(self) -> float:
        """Hits / of; 0 of 0 is 0."""
        return self.hits / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Hits of lists, and of popularity on the same interactions."""

    lists: int  # lists made, each id once
    lists_judged: int  # lists that at least one interaction was judged by
    interactions: Ratio  # judged interactions (each item once per list): those on their list
    visits: Ratio  # judged lists: those with at least one hit
    popularity: Ratio  # the same interactions: those among the most popular
    popularity_visits: Ratio
    by_rank: dict[int, Ratio]  # of the judged lists' items at that rank, those that were taken
    by_reason: dict[str, Ratio]  # of the judged lists' items with that reason, the same
    by_release: dict[str, Ratio]  # of the interactions judged by lists of that release
    by_trigger: dict[str, Ratio]  # of the interactions judged by lists with that trigger

    def as_json(self) -> dict[str, Any]:
        """Plain values; every share as hits, of and rate."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


def _plain(value: Any) -> Any:
    if isinstance(value, Ratio):
        return {"hits": value.hits, "of": value.of, "rate": round(value.rate, 4)}
    if isinstance(value, dict):
        return {str(key): _plain(share) for key, share in value.items()}
    return value


def outcomes(
    connection: Any,
    days: float = 30.0,
    types: Sequence[str] = OUTCOME_TYPES,
    since: int = 0,
    until: int = 2**62,
) -> Outcomes:
    """Judge the interactions with event time in [since, until) (epoch ms).

    `connection` is DuckDB with the views of streams.event_log.connect_views.
    """
    parameters = {"days": float(days), "types": list(types), "since": since, "until": until}
    for statement in (LISTS, LISTED, CANDIDATES, JUDGED, POPULAR, SCORED):
        names = {name: value for name, value in parameters.items() if f"${name}" in statement}
        connection.execute(statement, names)
    return Outcomes(
        lists=_one(connection, "SELECT count(DISTINCT recommendation_id) FROM all_lists"),
        lists_judged=_one(connection, "SELECT count(DISTINCT recommendation_id) FROM judged"),
        interactions=_share(connection, "SELECT count(*) FILTER (hit), count(*) FROM scored"),
        visits=_share(connection, VISITS.format(column="hit")),
        popularity=_share(connection, "SELECT count(*) FILTER (popular), count(*) FROM scored"),
        popularity_visits=_share(connection, VISITS.format(column="popular")),
        by_rank=_shares(connection, ITEMS.format(column="rank")),
        by_reason=_shares(connection, ITEMS.format(column="kind")),
        by_release=_shares(connection, INTERACTIONS.format(column="release")),
        by_trigger=_shares(connection, INTERACTIONS.format(column="trigger")),
    )


def _one(connection: Any, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _share(connection: Any, query: str) -> Ratio:
    hits, of = connection.execute(query).fetchone()
    return Ratio(int(hits), int(of))


def _shares(connection: Any, query: str) -> dict[Any, Ratio]:
    return {name: Ratio(hits, of) for name, hits, of in connection.execute(query).fetchall()}


LISTS: Final = """
CREATE OR REPLACE TEMP TABLE all_lists AS
SELECT recommendation_id, user_id, as_of, applied_offset, "trigger", release, items,
       "offset" AS made
FROM recommendations ANTI JOIN forgotten
  ON recommendations.user_id = forgotten.user_id AND recommendations.kafka_time <= forgotten.taken
WHERE status = 'ok'
QUALIFY row_number() OVER (PARTITION BY recommendation_id ORDER BY made) = 1
"""
LISTED: Final = """
CREATE OR REPLACE TEMP TABLE listed AS
SELECT recommendation_id, item->>'item_id' AS item_id, (item->>'rank')::INT AS rank,
       item->'reason'->>'kind' AS kind
FROM (SELECT recommendation_id, unnest(items::JSON[]) AS item FROM all_lists)
"""
CANDIDATES: Final = """
CREATE OR REPLACE TEMP TABLE taken AS
SELECT event_id, user_id, item_id, "timestamp" AS happened, "offset", recommendation_id
FROM remembered
WHERE type IN (SELECT unnest($types::VARCHAR[]))
QUALIFY row_number() OVER (PARTITION BY user_id, event_id ORDER BY "offset") = 1
"""
JUDGED: Final = """
CREATE OR REPLACE TEMP TABLE judged AS
WITH named AS (
    SELECT taken.*, all_lists.recommendation_id AS list_id, as_of, applied_offset, trigger, release
    FROM taken JOIN all_lists USING (recommendation_id, user_id)
), current AS (
    SELECT * FROM all_lists
    QUALIFY row_number() OVER (PARTITION BY user_id, as_of ORDER BY made DESC) = 1
), latest AS (
    SELECT taken.*, current.recommendation_id AS list_id, as_of, applied_offset, trigger, release
    FROM taken ASOF JOIN current
      ON taken.user_id = current.user_id AND taken.happened > current.as_of
    WHERE taken.event_id NOT IN (SELECT event_id FROM named)
)
SELECT list_id AS recommendation_id, item_id, as_of, any_value(trigger) AS trigger,
       any_value(release) AS release
FROM (FROM named UNION ALL BY NAME FROM latest)
WHERE applied_offset < "offset" AND happened - as_of <= $days * 86400000
  AND happened >= $since AND happened < $until
GROUP BY ALL
"""
POPULAR: Final = f"""
CREATE OR REPLACE TEMP TABLE popular AS
WITH days AS (SELECT DISTINCT as_of // {DAY_MS} AS day FROM judged),
daily AS (SELECT happened // {DAY_MS} AS day, item_id, count(*) AS number FROM taken GROUP BY ALL)
SELECT days.day, item_id,
       row_number() OVER (PARTITION BY days.day ORDER BY sum(number) DESC, item_id) AS place
FROM days JOIN daily ON daily.day BETWEEN days.day - {POPULARITY_DAYS} AND days.day - 1
GROUP BY days.day, item_id
QUALIFY place <= 200
"""
SCORED: Final = f"""
CREATE OR REPLACE TEMP TABLE scored AS
WITH sizes AS (SELECT recommendation_id, count(*) AS size FROM listed GROUP BY ALL)
SELECT judged.*, listed.rank IS NOT NULL AS hit, coalesce(place <= size, false) AS popular
FROM judged
LEFT JOIN listed USING (recommendation_id, item_id)
LEFT JOIN sizes USING (recommendation_id)
LEFT JOIN popular ON popular.day = as_of // {DAY_MS} AND popular.item_id = judged.item_id
"""
VISITS: Final = """
SELECT count(*) FILTER (any_hit), count(*)
FROM (SELECT bool_or({column}) AS any_hit FROM scored GROUP BY recommendation_id)
"""
ITEMS: Final = """
SELECT {column}, count(*) FILTER (item_id IN (
           SELECT item_id FROM scored s WHERE s.recommendation_id = listed.recommendation_id
       ))::INT, count(*)::INT
FROM listed WHERE recommendation_id IN (SELECT recommendation_id FROM judged)
GROUP BY ALL ORDER BY ALL
"""
INTERACTIONS: Final = """
SELECT {column}, count(*) FILTER (hit)::INT, count(*)::INT FROM scored GROUP BY ALL ORDER BY ALL
"""

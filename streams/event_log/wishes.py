"""What users asked to be forgotten, as views of the log: one rule for all who read it.

An interaction is forgotten if Kafka had taken it when it took the wish, or if its event time is
not after `until`: the wish's own event time, or that of the newest interaction which Kafka had
taken before, whichever is later; a type of weight 0 (impressions), which histories do not keep,
counts for nothing there. So what is sent again, and what comes late, stays forgotten, and what
the user does afterwards counts: of a wish that is sent again the first is meant. A wish's event
time is no later than Kafka's, if that is a time at all: of wishes that are refused today
(`no_time`) old logs may hold some.
`streams/tracker/reducer.py` holds the same rule for live state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from models.schemas import EARLIEST_MS, LATEST_MS

_FORGOTTEN: Final = """
CREATE VIEW forgotten AS
WITH timed AS (
    SELECT user_id, timestamp,
        CASE WHEN kafka_time >= {earliest} AND kafka_time < {latest} THEN kafka_time END
        AS received
    FROM edits WHERE status = 'ok' AND action = 'forget'
    QUALIFY row_number() OVER (PARTITION BY user_id, edit_id ORDER BY "offset") = 1
), wishes AS (
    SELECT user_id, coalesce(max(received), -1) AS taken, max(least(timestamp, received)) AS made
    FROM timed GROUP BY user_id
)
SELECT wishes.user_id, taken, greatest(made, max(interactions.timestamp)) AS until
FROM wishes LEFT JOIN interactions
  ON interactions.user_id = wishes.user_id AND interactions.status = 'ok' AND kafka_time <= taken
  AND NOT list_contains({unkept}::VARCHAR[], interactions.type)
GROUP BY wishes.user_id, taken, made
"""
_REMEMBERED: Final = """
CREATE VIEW remembered AS
SELECT interactions.* FROM interactions LEFT JOIN forgotten USING (user_id)
WHERE status = 'ok'
  AND (forgotten.user_id IS NULL OR (kafka_time > taken AND timestamp > until))
"""


def wish_views(weights: Mapping[str, float]) -> tuple[str, str]:
    """`forgotten` (user_id, taken, until; times in ms) and `remembered`, accepted interactions
    without theirs. `weights`: evidence by interaction type, as in the settings.
    """
    unkept = [kind for kind, weight in weights.items() if weight <= 0]
    forgotten = _FORGOTTEN.format(earliest=EARLIEST_MS, latest=LATEST_MS, unkept=unkept)
    return forgotten, _REMEMBERED

"""What users asked to be forgotten, as views of the log: one rule for all who read it.

An interaction is forgotten if Kafka had taken it when it took the wish, or if its event time is
not after `until`: the wish's own event time, or that of the newest interaction which Kafka had
taken before, whichever is later. So what is sent again, and what comes late, stays forgotten,
and what the user does afterwards counts. A wish's event time is no later than Kafka's.
`streams/tracker/applying.py` holds the same rule for live state.
"""

from __future__ import annotations

from typing import Final

_FORGOTTEN: Final = """
CREATE VIEW forgotten AS
WITH wishes AS (
    SELECT user_id, max(kafka_time) AS taken, max(least(timestamp, kafka_time)) AS made
    FROM edits WHERE status = 'ok' AND action = 'forget' GROUP BY user_id
)
SELECT wishes.user_id, taken, greatest(made, max(interactions.timestamp)) AS until
FROM wishes LEFT JOIN interactions
  ON interactions.user_id = wishes.user_id AND interactions.status = 'ok' AND kafka_time <= taken
GROUP BY wishes.user_id, taken, made
"""
_REMEMBERED: Final = """
CREATE VIEW remembered AS
SELECT interactions.* FROM interactions LEFT JOIN forgotten USING (user_id)
WHERE status = 'ok'
  AND (forgotten.user_id IS NULL OR (kafka_time > taken AND timestamp > until))
"""
WISHES: Final = (_FORGOTTEN, _REMEMBERED)
"""`forgotten` (user_id, taken, until; times in ms) and `remembered`, accepted interactions
without theirs."""

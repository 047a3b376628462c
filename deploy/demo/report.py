"""The demo's figures, read from the event log, and var/demo/report.json."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Final

import orjson
import psutil

from deploy.demo.sample import DemoSample
from deploy.outcomes import outcomes
from models.settings import Settings
from streams.event_log import SegmentLog, connect_views

HORIZON_DAYS: Final = 120.0  # these customers come back after weeks or months


def make_report(settings: Settings, sample: DemoSample, seen: dict[str, Any]) -> dict[str, Any]:
    """All figures. `seen`: what only the running demo knew (times, metrics, memory)."""
    from streams.parity import check_parity

    connection = connect_views(settings.log_dir, settings.windows.weights)
    parity = check_parity(SegmentLog(settings.log_dir), settings)
    later = outcomes(
        connection,
        days=HORIZON_DAYS,
        types=["purchase"],
        since=sample.live_since,
        until=sample.ends + 1,
    )
    return {
        **seen,
        "events": _events(connection, seen),
        "profiles": _profiles(connection),
        "recommendations": _recommendations(connection, seen["live_from_ms"]),
        "next_purchases": later.as_json(),
        "parity": {
            "requests": parity.requests,
            "profiles": parity.profiles,
            "mismatches": parity.mismatch_count,
        },
    }


def save(report: dict[str, Any], folder: Path) -> Path:
    """Write report.json into `folder`."""
    path = folder / "report.json"
    path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    return path


def machine() -> dict[str, Any]:
    """What the demo runs on."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        **{"cores": os.cpu_count(), "memory_gib": round(memory, 1)},
        **{"python": platform.python_version(), "system": platform.platform()},
    }


def _events(connection: Any, seen: dict[str, Any]) -> dict[str, Any]:
    rows = connection.execute("SELECT status, count(*) FROM interactions GROUP BY 1").fetchall()
    return {
        "recorded": dict(sorted(rows)),
        "applied": seen["applied"],
        "dead_letters": seen["dead_letters"],
    }


PROFILES: Final = """
SELECT count(*), count(DISTINCT p.user_id), count(*) FILTER (model <> 'extractive'),
       sum((p.sentences->>'kept')::INT), sum((p.sentences->>'rejected')::INT),
       sum((p.sentences->>'extractive')::INT), sum((p.tokens->>'completion')::INT),
       quantile_cont(p.kafka_time - r.requested_at, [0.5, 0.99])
FROM profiles p LEFT JOIN requests r USING (request_id)
WHERE p.status = 'ok'
"""
ORIGINS: Final = """
SELECT s->>'origin', count(*)
FROM (
    SELECT unnest(json_extract(sections, ['$.stable', '$.current', '$.now', '$.avoids'])) AS list
    FROM profiles WHERE status = 'ok'
), (SELECT unnest(list::JSON[]) AS s)
WHERE list IS NOT NULL GROUP BY 1
"""


def _profiles(connection: Any) -> dict[str, Any]:
    number, users, by_model, kept, rejected, extractive, tokens, waits = connection.execute(
        PROFILES
    ).fetchone()
    shown = dict(connection.execute(ORIGINS).fetchall())
    of = sum(shown.values()) or 1
    return {
        "written": number,
        "users": users,
        "by_the_model": by_model,
        "sentences": {"kept": kept, "rejected": rejected, "extractive": extractive},
        "share_of_shown_sentences": {name: round(n / of, 3) for name, n in sorted(shown.items())},
        "completion_tokens": tokens,
        "request_to_profile_ms": _quantiles(waits),
    }


LISTS: Final = """
SELECT count(*), count(DISTINCT user_id), count(*) FILTER (profile_version IS NOT NULL),
       quantile_cont(kafka_time - event_received_at, [0.5, 0.99])
           FILTER ("trigger" = 'event' AND event_received_at >= $live_from),
       quantile_cont((as_of - profile_as_of) / 86400000.0, [0.5, 0.99])
FROM recommendations WHERE status = 'ok'
"""
TRIGGERS: Final = """
SELECT "trigger", count(*) FROM recommendations WHERE status = 'ok' GROUP BY 1 ORDER BY 1
"""


def _recommendations(connection: Any, live_from_ms: int) -> dict[str, Any]:
    number, users, with_profile, waits, ages = connection.execute(
        LISTS, {"live_from": live_from_ms}
    ).fetchone()
    return {
        "made": number,
        "users": users,
        "with_a_profile": with_profile,
        "by_trigger": dict(connection.execute(TRIGGERS).fetchall()),
        "event_to_recommendation_ms": _quantiles(waits),
        "profile_age_days": _quantiles(ages),
    }


def _quantiles(values: list[float] | None) -> dict[str, float | None]:
    p50, p99 = values or (None, None)
    return {"p50": _rounded(p50), "p99": _rounded(p99)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)

"""The event log: every record of every logged topic, each offset once, as Parquet segments.

    <dir>/<topic>/<partition>/manifest.json       the segments, by offset range
    <dir>/<topic>/<partition>/<first>-<last>.parquet
    <dir>/<topic>/<partition>/apart/              files that the log cannot use, never deleted

Topics are named without the deployment's prefix. Readers go by the manifests, never by a glob.
"""

from __future__ import annotations

from streams.event_log.columns import LOGGED_TOPICS, VIEW_OF
from streams.event_log.compaction import compact
from streams.event_log.segments import SegmentLog
from streams.event_log.views import answered, connect_views

__all__ = ["LOGGED_TOPICS", "VIEW_OF", "SegmentLog", "answered", "compact", "connect_views"]

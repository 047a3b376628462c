"""Every metric of every role, declared here and nowhere else.

A class per role takes the registry that the role's HealthServer serves. docs/metrics.md is the
table of all of them: `make docs` writes it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

# Seconds. From one batch of ranking to a user who waited for the budget.
LATENCY: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1, 2, 5, 10, 20, 60, 120, 300, 900, 3600),
)
# Seconds of event time: a minute to two years.
AGE: Final = (60, 600, 3600, 6 * 3600, *(86_400 * days for days in (1, 3, 7, 14, 30, 60, 180, 730)))
STALENESS: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric as the page shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


class Metrics:
    """Metrics of one registry, and how the page lists them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.declared: list[Declared] = []

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self._declare(name, "counter", text, labels)
        return Counter(name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        self._declare(name, "gauge", text, labels)
        return Gauge(name, text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = LATENCY
    ) -> Histogram:
        self._declare(name, "histogram", text, labels)
        return Histogram(name, text, labels, registry=self._registry, buckets=buckets)

    def leave_out(self, metric: Gauge) -> None:
        """Not shown from now on: one without labels would be shown as 0 where nobody set it."""
        self._registry.unregister(metric)

    def _declare(self, name: str, kind: str, text: str, labels: tuple[str, ...]) -> None:
        self.declared.append(Declared(name, kind, labels, text))


class RoleMetrics(Metrics):
    """What every role measures; the others add theirs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        ProcessCollector(registry=registry)
        self.ready = self._gauge(
            "palate_ready",
            "1 with an empty reason while work is being done, else 0 with the reason, as /readyz "
            "says it.",
            "reason",
        )
        self.lag = self._gauge(
            "palate_lag_records", "Records between the consumer and the end.", "topic", "partition"
        )
        self.failed = self._counter(
            "palate_records_failed_total",
            "Records that were valid and with which the role failed: a defect, its traceback is in "
            "the role's log. Each is a dead letter `failed`; 0 unless something is to be mended.",
            "topic",
        )
        self.dead_letters_lost = self._counter(
            "palate_dead_letters_lost_total",
            "Refused records whose dead letter Kafka refused too; the log says which.",
            "reason",
        )

    @property
    def registry(self) -> CollectorRegistry:
        """What the role's /metrics shows."""
        return self._registry

    def _snapshots_damaged(self) -> Counter:
        return self._counter(
            "palate_cooccurrence_damaged_total",
            "Co-occurrence snapshots found damaged; the last whole one is used meanwhile.",
        )


class ServingMetrics(RoleMetrics):
    """What the roles measure that follow the release in force."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.release_unavailable = self._gauge(
            "palate_release_unavailable",
            "1 while the release in force cannot be served by this role; the one before serves on, "
            "if it can be. The role's log says why.",
        )


class TrackerMetrics(ServingMetrics):
    """Events in, requests and recommendations out."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.events = self._counter(
            "palate_events_total",
            "Interactions by type and outcome: applied, duplicate, forgotten, ignored, too_old, "
            "forwarded, or the reason of the dead letter (type unknown).",
            *("type", "outcome"),
        )
        self.events_far_ahead = self._counter(
            "palate_events_far_ahead_total",
            "Interactions timed more than 30 days ahead of their partition's bulk: by a wrong "
            "clock, or in an import that is not sorted by time. They age their own user alone.",
            "partition",
        )
        self.event_to_recommendation = self._histogram(
            "palate_event_to_recommendation_seconds",
            "From Kafka's time of the event to the acknowledged recommendation.",
        )
        self.event_to_profile = self._histogram(
            "palate_event_to_profile_seconds",
            "From Kafka's time of the event that a profile was asked for to its arrival.",
        )
        self.profile_age = self._histogram(
            "palate_profile_age_seconds",
            "Event time between a profile and the recommendation it served.",
            buckets=AGE,
        )
        self.staleness = self._histogram(
            "palate_staleness_served",
            "Staleness score of the user's profile when a recommendation was served.",
            buckets=STALENESS,
        )
        self.recommendations = self._counter(
            "palate_recommendations_total", "Acknowledged recommendations.", "trigger"
        )
        self.waiting_users = self._gauge(
            "palate_waiting_users", "Users whose recommendation is owed."
        )
        self.foreign_vectors = self._gauge(
            "palate_foreign_vectors",
            "Users known to wait for their profile's vector of the serving release.",
        )
        self.requests = self._counter(
            "palate_profile_requests_total", "Acknowledged requests by the rule that fired.", "rule"
        )
        self.profiles_due = self._gauge("palate_profiles_due", "Users whose profile is owed.")
        self.budget_available = self._gauge(
            "palate_budget_calls", "Model calls that the token bucket would allow now."
        )
        self.profiles_taken = self._counter(
            "palate_profiles_taken_total",
            "Profiles read: taken, older than the one kept, or of before a wish to be forgotten.",
            "outcome",
        )
        self.retrieval_latency = self._histogram(
            "palate_retrieval_seconds",
            "Time to rank one batch of users (rank) or to read new vectors (refresh).",
            "kind",
        )
        self.table_version = self._gauge(
            "palate_table_version", "Version of the vector table in use.", "table"
        )
        self.snapshots_damaged = self._snapshots_damaged()
        self.changelog_bytes = self._counter(
            "palate_changelog_bytes_total", "Bytes of state written to the changelog."
        )
        self.transactions = self._counter(
            "palate_transactions_total", "Committed transactions, of state and what goes with it."
        )
        self.users_failed = self._counter(
            "palate_users_failed_total",
            "Times that a user was set apart, because a loop (serve, ask, move, silent, read) "
            "failed with them or Kafka refused what was made for them: a defect, with its "
            "traceback in the log.",
            "loop",
        )
        self.damaged_records = self._counter(
            "palate_state_records_damaged_total",
            "Records of the tracker's state that were passed over, because Palate has not written "
            "them so; `palate rebuild` makes the state anew.",
        )
        self.partitions_lost = self._counter(
            "palate_partitions_lost_total",
            "Partitions given up and taken over again: fenced by another tracker, kafka, refused, "
            "state refused, local state damaged, machine (a full disk) or defect.",
            "reason",
        )


class ProfilerMetrics(ServingMetrics):
    """Requests in, profiles out, and what the model cost."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.profiles = self._counter(
            "palate_profiles_total",
            "Acknowledged profiles: by the model, extractive by setting, or fallback.",
            "outcome",
        )
        self.dropped = self._counter(
            "palate_requests_dropped_total",
            "Requests not answered: coalesced into a newer one, superseded by a stored profile, "
            "invalid, failed (a defect; both are dead letters), or expired before a retry.",
            "reason",
        )
        self.waiting = self._gauge("palate_requests_waiting", "Users whose request waits.")
        self.in_flight = self._gauge("palate_requests_in_flight", "Requests being answered.")
        self.owed = self._gauge(
            "palate_profiles_owed", "Fallback profiles that the model is still to replace."
        )
        self.request_to_profile = self._histogram(
            "palate_request_to_profile_seconds", "From the request to the acknowledged profile."
        )
        self.tokens = self._counter(
            "palate_tokens_total", "Tokens read (prompt) and written (completion).", "kind"
        )
        self.engine_latency = self._histogram(
            "palate_engine_seconds", "Time of one answered model call."
        )
        self.engine_failures = self._counter(
            "palate_engine_failures_total",
            "Failed model calls: unavailable, nonsense, error.",
            "kind",
        )
        self.engine_up = self._gauge(
            "palate_engine_up", "1 if the last call or health check was answered."
        )
        self.sentences = self._counter(
            "palate_sentences_total",
            "Sentences: kept (supported by events), rejected (not), extractive (stood in).",
            "outcome",
        )
        self.embedding_latency = self._histogram(
            "palate_embedding_seconds", "Time to embed one batch of texts."
        )


class IndexerMetrics(ServingMetrics):
    """Vectors written and co-occurrence built."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.rows = self._counter(
            "palate_index_rows_total",
            "Rows by outcome: upserted, removed, invalid.",
            "table",
            "outcome",
        )
        self.table_version = self._gauge(
            "palate_table_version", "Version of the vector table.", "table"
        )
        self.release_lag = self._gauge(
            "palate_index_release_lag_records",
            "Records that the tables of a release (serving, candidate, previous) still lack.",
            "release",
        )
        self.embedding_latency = self._histogram(
            "palate_embedding_seconds", "Time to embed one batch of texts."
        )
        self.write_latency = self._histogram(
            "palate_index_write_seconds", "Time to write one micro-batch.", "table"
        )
        self.optimize_latency = self._histogram(
            "palate_index_optimize_seconds", "Time of one compaction.", "table"
        )
        self.publish_to_index = self._histogram(
            "palate_publish_to_index_seconds",
            "From Kafka's time of a record to its vector being searchable.",
            "table",
        )
        self.cooccurrence_latency = self._histogram(
            "palate_cooccurrence_seconds", "Time to build one co-occurrence snapshot."
        )
        self.snapshots_damaged = self._snapshots_damaged()
        self.cooccurrence_items = self._gauge(
            "palate_cooccurrence_items", "Items with neighbours in the last snapshot."
        )


class RecorderMetrics(RoleMetrics):
    """What the event log took in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.rows = self._counter(
            "palate_recorded_rows_total",
            "Rows by status: ok, invalid, forwarded, tombstone.",
            *("topic", "status"),
        )
        self.segments = self._counter("palate_segments_total", "Segments written.", "topic")
        self.segment_bytes = self._counter(
            "palate_segment_bytes_total", "Bytes of the segments written.", "topic"
        )
        self.write_latency = self._histogram(
            "palate_segment_write_seconds", "Time to make one segment durable.", "topic"
        )
        self.next_offset = self._gauge(
            "palate_log_next_offset", "Offset after the last one logged.", "topic", "partition"
        )
        self.compactions = self._counter(
            "palate_compactions_total", "Merges of small segments.", "topic"
        )
        self.missing_rows = self._gauge(
            "palate_log_missing_rows",
            "Rows that were logged and cannot be read: their segment is damaged or gone.",
            *("topic", "partition"),
        )
        self.set_apart = self._gauge(
            "palate_log_files_apart",
            "Files of the log that were set apart, because they are damaged or of no use to it.",
            *("topic", "partition"),
        )
        self.backfilled = self._counter(
            "palate_backfilled_rows_total",
            "Rows read again from Kafka in place of missing ones.",
            "topic",
        )
        self.parity_checked = self._counter(
            "palate_parity_checked_total",
            "Logged requests and profiles that were recomputed from the events.",
        )
        self.parity_mismatches = self._counter(
            "palate_parity_mismatches_total",
            "Of these, differences found; 0 unless it is a defect.",
        )


class TrainerMetrics(Metrics):
    """The last training job; pushed or written to a file, for a job has no page to be scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.last_success = self._gauge(
            "palate_training_last_success_timestamp_seconds",
            "When training last ended as it should: with a release that passed, or skipped; not "
            "skipped because the last release was refused or could not be let serve.",
        )
        self.last_run = self._gauge(
            "palate_training_last_run_timestamp_seconds", "When the last run ended, however."
        )
        self.seconds = self._gauge(
            "palate_training_seconds",
            "Wall time of the last run, however it ended; of a resumed one what it took to go on.",
        )
        self.outcome = self._gauge(
            "palate_training_outcome",
            "1 for how the last run ended: passed, refused (by the gate), skipped, failed.",
            "outcome",
        )
        self.stage_seconds = self._gauge(
            "palate_training_stage_seconds", "Wall time of each stage of the last run.", "stage"
        )
        self.steps = self._gauge(
            "palate_training_optimiser_steps", "Optimiser steps of each stage.", "stage"
        )
        self.loss = self._gauge("palate_training_loss", "Last loss of each stage.", "stage")
        self.reward = self._gauge(
            "palate_training_reward",
            "Mean reward on held-out users: before and after RLSO.",
            "when",
        )
        self.new_events = self._gauge(
            "palate_training_new_events",
            "Events since the serving release's data; absent where the run did not count them.",
        )
        self.gate = self._gauge(
            "palate_training_gate_passed",
            "1 if the release that was judged last kept the gate's rule, 0 if not.",
            "rule",
        )
        self.gate_found = self._gauge(
            "palate_training_gate_found",
            "What the gate's rule found in the release that was judged last; its limit in the log.",
            "rule",
        )


DECLARED: Final[dict[str, type[Metrics]]] = {
    "tracker": TrackerMetrics,
    "profiler": ProfilerMetrics,
    "indexer": IndexerMetrics,
    "recorder": RecorderMetrics,
    "trainer": TrainerMetrics,
}


def exposition(registry: CollectorRegistry) -> tuple[bytes, str]:
    """(body, content type) of /metrics."""
    return generate_latest(registry), CONTENT_TYPE_LATEST

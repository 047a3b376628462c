"""All settings, read in one place.

Sources, strongest first: environment (`PALATE_` + section + `__` + name, for example
`PALATE_KAFKA__BOOTSTRAP`), then the short form `KAFKA_BOOTSTRAP`, then `palate.toml` in the
working directory (or the file that `PALATE_CONFIG` names), then the defaults below.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from models.errors import SettingsError
from models.setting_sources import ShortForms, unknown_names
from models.training_settings import SettingGroup, TrainSettings

DAY_S = 86_400.0
DEFAULT_WEIGHTS = {
    "impression": 0.0,
    "view": 0.2,
    "click": 0.3,
    "cart": 0.6,
    "purchase": 1.0,
    "rating": 1.0,
    "cancel": 1.0,
    "hide": 1.0,
}

# What pandas, R, SQL dumps and spreadsheets write where there is nothing.
ABSENT_WORDS = (
    *("nan", "-nan", "none", "null", "(null)", "nil", "na", "n/a", "n.a.", "<na>", "nat"),
    *("#n/a", "#n/a n/a", "#na", "#null!", "#ref!", "#value!", "#name?", "#div/0!", "#num!"),
    *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "\\n", "undefined", "[object object]"),
    *(".", "-", "--", "---", "?"),
)


def _all_types(weights: dict[str, float]) -> dict[str, float]:
    unknown = weights.keys() - DEFAULT_WEIGHTS.keys()
    if unknown:
        raise ValueError(f"unknown interaction types: {', '.join(sorted(unknown))}")
    return DEFAULT_WEIGHTS | weights


class KafkaSettings(SettingGroup):
    """Which cluster, and how to reach it."""

    bootstrap: str = Field("127.0.0.1:19092", description="host:port[,host:port…] of the cluster.")
    embedded: bool = Field(True, description="`palate up` runs its own broker at `bootstrap`.")
    partitions: int = Field(4, ge=1, description="Partitions of every user-keyed topic.")
    replication: int = Field(1, ge=1, description="Replication factor of created topics.")
    prefix: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]*$",
        max_length=100,
        description="Put before every topic name and group id; letters, digits, `.`, `_`, `-`.",
    )
    max_message_bytes: int = Field(
        12 * 2**20,
        ge=2**20,
        description="Largest message of topics and producers; a longer one is refused by Kafka, "
        "one of up to this size arrives, to become a dead letter. No more than the cluster takes.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="As Kafka's own setting."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="As Kafka's own setting."
    )
    sasl_username: str | None = Field(None, description="User for SASL.")
    sasl_password: SecretStr | None = Field(None, description="Password for SASL.")
    ssl_ca: Path | None = Field(None, description="PEM file of trusted authorities.")
    ssl_cert: Path | None = Field(None, description="PEM file of the client certificate.")
    ssl_key: Path | None = Field(None, description="PEM file of the client key.")
    retention_days: float = Field(30.0, description="Retention of deleted (not compacted) topics.")
    session_timeout_s: float = Field(
        6.0, description="A dead consumer's partitions move on after this."
    )
    transaction_timeout_s: float = Field(
        20.0,
        gt=0,
        description="Kafka ends a tracker's transaction that is open for longer; until then a "
        "tracker that stopped in the middle of one holds up the readers of what it sends.",
    )
    heartbeat_s: float = Field(2.0, description="Consumer heartbeat; a third of the timeout.")
    answer_within_s: float = Field(
        15.0, gt=0, description="How long a command waits for the brokers; roles wait for ever."
    )
    broker_heap_mb: int = Field(512, description="Java heap of the embedded broker, MiB.")
    broker_min_free_mb: int = Field(
        512, description="The embedded broker does not start with less disk, MiB."
    )
    broker_jars: Path = Field(
        Path("~/.cache/palate"), description="Kafka's jars are kept here, shared by all data_dirs."
    )


class WindowSettings(SettingGroup):
    """Spans and caps of the three views (RecSysLLM's data phase, methods §1.2)."""

    history_cap: int = Field(500, ge=1, le=500, description="Interactions kept per user.")
    long_days: float = Field(730.0, gt=0, description="Span of stable taste.")
    medium_days: float = Field(60.0, gt=0, description="Span of current interests.")
    short_hours: float = Field(48.0, gt=0, description="Span of right now.")
    long_cap: int = Field(500, ge=1, description="Most entries of the long window.")
    medium_cap: int = Field(60, ge=1, description="Most entries of the medium window.")
    short_cap: int = Field(16, ge=1, description="Most entries of the short window.")
    avoids_cap: int = Field(16, ge=1, description="Most entries of the dislikes.")
    low_rating: float = Field(2.0, description="A rating at or below this is a dislike.")
    weights: Annotated[dict[str, float], AfterValidator(_all_types)] = Field(
        default_factory=lambda: dict(DEFAULT_WEIGHTS),
        description="Evidence weight by interaction type; 0 is logged but kept out of histories.",
    )
    future_tolerance_s: float = Field(
        600.0, description="Event time may be this far after the record's Kafka time."
    )


class TriggerSettings(SettingGroup):
    """When a profile is worth a model call."""

    evidence: float = Field(3.0, gt=0, description="Weighted new evidence worth staleness 1.")
    threshold: float = Field(1.0, gt=0, description="Staleness at which a profile is due.")
    first_evidence: float = Field(1.0, description="Evidence for a user's first profile.")
    hard_age_days: float = Field(
        180.0, description="A profile this old with any change is due whatever its score."
    )
    min_interval_s: float = Field(30.0, description="Wall seconds between requests of one user.")
    calls_per_minute: float = Field(
        60.0, gt=0, description="Budget of model calls, all partitions."
    )
    burst_calls: float = Field(20.0, ge=1, description="Calls that may be saved up.")
    tick_s: float = Field(0.25, gt=0, description="How often due users are looked at.")
    settle_s: float = Field(
        2.0, ge=0, description="Wall seconds without an event before a user is asked for."
    )
    silent_check_s: float = Field(5.0, gt=0, description="How often the silent-user timer runs.")
    catch_up_lag: int = Field(
        5_000, description="Records behind at which a worker applies without sending."
    )


class ProfileSettings(SettingGroup):
    """How a profile is written."""

    engine: Literal["transformers", "openai", "extractive"] = Field(
        "transformers", description="Embedded model, an OpenAI-compatible server, or none."
    )
    model: str = Field("smollm2-135m-instruct", description="Bundled name, folder or hub id.")
    starter: bool = Field(
        True, description="Begin with the shipped adapter where it fits; a server must take LoRAs."
    )
    base_url: str = Field(
        "http://127.0.0.1:18000/v1", description="Of the OpenAI-compatible server."
    )
    api_key: SecretStr | None = Field(None, description="Key for that server.")
    served_model: str | None = Field(None, description="Model or LoRA name to ask the server for.")
    max_tokens: int = Field(256, ge=16, le=256, description="Most tokens of a profile.")
    max_new_tokens: int = Field(
        96, ge=8, description="Most tokens that the model may write, served or in training."
    )
    max_prompt_tokens: int = Field(1024, ge=128, description="Most tokens of a prompt.")
    in_flight: int = Field(32, ge=1, description="Requests worked on at once.")
    batch: int = Field(8, ge=1, description="Prompts per batch of the embedded model.")
    timeout_s: float = Field(120.0, gt=0, description="One model call may take this long.")
    retries: int = Field(3, ge=0, description="Further tries before the extractive stand-in.")
    retry_after_s: float = Field(
        30.0, gt=0, description="An extractive stand-in is tried again after this."
    )
    temperature: float = Field(0.0, ge=0, description="0: greedy.")
    repetition_penalty: float = Field(
        1.0, ge=1, description="Above 1 also punishes words of the prompt: no quoting of titles."
    )
    seed: int = Field(0, description="Seed of sampling.")


class EmbedderSettings(SettingGroup):
    """Which text embedder, and how."""

    model: str = Field("all-minilm-l6-v2", description="Bundled name, folder or hub id.")
    batch: int = Field(32, ge=1, description="Texts per forward pass.")
    description_chars: int = Field(600, description="How much of a description is embedded.")


class IndexSettings(SettingGroup):
    """The derived views: vectors and co-occurrence."""

    uri: str = Field(
        "", description="LanceDB folder or object-store URI; default data_dir/lancedb."
    )
    micro_batch: int = Field(64, ge=1, description="Rows per write.")
    linger_s: float = Field(0.5, ge=0, description="A smaller batch is written after this.")
    optimize_every: int = Field(50, ge=1, description="Writes between compactions.")
    keep_versions_s: float = Field(600.0, ge=0, description="Old table versions kept this long.")
    cooccurrence_every_s: float = Field(30.0, gt=0, description="Between co-occurrence snapshots.")
    cooccurrence_neighbours: int = Field(100, ge=1, description="Nearest items kept per item.")
    cooccurrence_memory_mb: int = Field(
        512, ge=64, description="Most memory of the query that reads the log for it, MB."
    )
    pair_half_life_days: float = Field(
        365.0, gt=0, description="A pair of items counts half when a user had them so far apart."
    )
    pair_support: float = Field(
        1.0, ge=0, description="Users whose word chance has about a pair of items."
    )
    popularity_half_life_days: float = Field(
        30.0, gt=0, description="A user's interest counts half for popularity after this."
    )


class RankingSettings(SettingGroup):
    """Weights and filters of the recommendation (parts are in models/ranking/scoring.py)."""

    top_k: int = Field(10, ge=1, le=200, description="Items per recommendation.")
    profile: float = Field(0.25, ge=0, description="Weight of profile similarity.")
    recent: float = Field(1 / 3, ge=0, description="Weight of recent-items similarity.")
    cooccurrence: float = Field(1.0, ge=0, description="Weight of item-to-item co-occurrence.")
    popularity: float = Field(0.02, ge=0, description="Weight of the popularity prior.")
    recent_decay: float = Field(
        0.7, gt=0, le=1, description="Weight per moment (basket, event time) back in the history."
    )
    recent_items: int = Field(40, ge=1, description="Newest distinct positives looked at.")
    diversity: float = Field(0.15, ge=0, le=1, description="0: none; MMR's share of novelty.")
    candidates: int = Field(100, ge=1, description="Best-scored items that diversity picks from.")
    exact_up_to: int = Field(
        100_000, ge=0, description="Larger catalogues take candidates from vector searches."
    )
    exclude_seen: bool = Field(False, description="Leave out items that the user already had.")
    interval_s: float = Field(1.0, ge=0, description="Per user at most one event-driven list.")
    tick_s: float = Field(0.01, gt=0, description="How often waiting users are served.")
    batch: int = Field(128, ge=1, description="Users ranked together.")
    refresh_s: float = Field(1.0, gt=0, description="How often new vectors are looked for.")


class LogSettings(SettingGroup):
    """The event log."""

    dir: Path | None = Field(None, description="Folder of segments; default data_dir/log.")
    rows: int = Field(20_000, ge=1, description="Rows after which a segment is closed.")
    seconds: float = Field(2.0, gt=0, description="Or after this many seconds.")
    bytes: int = Field(64 * 2**20, ge=1, description="Or after this many bytes of values.")
    accept_gap: bool = Field(
        False, description="Go on although events expired before they were recorded."
    )
    skip_damaged: bool = Field(
        False,
        description="Rebuild, check and train although segments of the log are damaged or missing.",
    )
    compact_below_rows: int = Field(10_000, description="Segments smaller than this are merged.")
    compact_every_s: float = Field(300.0, gt=0, description="How often.")
    parity_every_s: float = Field(
        60.0, gt=0, description="The recorder checks parity of what is new after this."
    )


class ImporterSettings(SettingGroup):
    """How `palate import` reads files."""

    absent_words: tuple[str, ...] = Field(
        ABSENT_WORDS,
        description="A cell that says only this is empty (capitals do not matter).",
    )


class MetricsSettings(SettingGroup):
    """Where each role serves /metrics, /healthz and /readyz."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    tracker_port: int = Field(19101, description="Tracker; worker n listens n ports higher.")
    profiler_port: int = Field(19201, description="Profiler.")
    recorder_port: int = Field(19301, description="Recorder.")
    indexer_port: int = Field(19401, description="Indexer.")


class LivenessSettings(SettingGroup):
    """When a role counts as ended, hung or at a standstill."""

    drain_s: float = Field(
        25.0, gt=0, description="A role that is told to stop ends within this; `down` waits 30 s."
    )
    close_s: float = Field(
        5.0, gt=0, description="A role whose work has failed, or told twice, ends within this."
    )
    hung_s: float = Field(
        60.0,
        gt=0,
        description="A role whose event loop stands still for this is ended; a tracker with a "
        "million users takes half a minute to look through a partition.",
    )
    away_s: float = Field(
        10.0, gt=0, description="Not ready if Kafka has not answered for this: two late answers."
    )
    stalled_s: float = Field(
        60.0,
        gt=0,
        description="Not ready if a partition with records to read has not moved for this; longer "
        "than a rebalance or the slowest batch.",
    )


class Settings(BaseSettings):
    """The whole configuration; frozen once read."""

    model_config = SettingsConfigDict(
        env_prefix="PALATE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    data_dir: Path = Field(Path("var"), description="Everything Palate keeps on this machine.")
    models_dir: Path = Field(
        default_factory=lambda data: data.get("data_dir", Path("var")) / "models",
        description="Folder of converted models; default data_dir/models.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Logging.")
    log_format: Literal["text", "json"] = Field("text", description="Lines for people or machines.")
    workers: int = Field(1, ge=1, description="Tracker processes started by `palate up`.")
    kafka: KafkaSettings = KafkaSettings()
    windows: WindowSettings = WindowSettings()
    trigger: TriggerSettings = TriggerSettings()
    profile: ProfileSettings = ProfileSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    index: IndexSettings = IndexSettings()
    ranking: RankingSettings = RankingSettings()
    log: LogSettings = LogSettings()
    importer: ImporterSettings = ImporterSettings()
    metrics: MetricsSettings = MetricsSettings()
    liveness: LivenessSettings = LivenessSettings()
    train: TrainSettings = TrainSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the short form, then the TOML file."""
        toml = Path(os.environ.get("PALATE_CONFIG", "palate.toml"))
        short_forms = ShortForms(settings_cls, env_settings)
        file = TomlConfigSettingsSource(settings_cls, toml)
        return init_settings, env_settings, short_forms, file

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        spans = self.windows
        if not spans.short_hours / 24 <= spans.medium_days <= spans.long_days:
            raise ValueError("windows: spans must satisfy short ≤ medium ≤ long")
        if self.kafka.heartbeat_s * 2 > self.kafka.session_timeout_s:
            raise ValueError("kafka: heartbeat_s must be at most half of session_timeout_s")
        if self.kafka.security_protocol.startswith("SASL") and not (
            self.kafka.sasl_username and self.kafka.sasl_password
        ):
            raise ValueError("kafka: SASL needs sasl_username and sasl_password")
        return self

    @property
    def log_dir(self) -> Path:
        """Folder of the event log."""
        return self.log.dir or self.data_dir / "log"

    @property
    def lancedb_uri(self) -> str:
        """Folder or URI of the vector index."""
        return self.index.uri or str(self.data_dir / "lancedb")

    @property
    def releases_dir(self) -> Path:
        """Folder of the immutable release folders."""
        return self.data_dir / "releases"

    @property
    def training_dir(self) -> Path:
        """Folder of training runs: checkpoints, logs, metrics."""
        return self.train.dir or self.data_dir / "training"

    @property
    def cooccurrence_dir(self) -> Path:
        """Folder of co-occurrence snapshots."""
        return self.data_dir / "cooccurrence"

    def topic(self, name: str) -> str:
        """Full name of a topic: the prefix and `name`."""
        return self.kafka.prefix + name

    def printable(self) -> dict[str, Any]:
        """All settings with secrets masked, for the log line at start."""
        return self.model_dump(mode="json")

    def environment(self, without: Collection[str] = ()) -> dict[str, str]:
        """The environment that gives these settings: variable → value, secrets masked.

        What was not set, or set to its default, is left out, and so are the groups `without`.
        """
        changed = self.model_dump(
            mode="json", exclude=set(without), exclude_unset=True, exclude_defaults=True
        )
        return dict(_variables("PALATE_", self, changed))


def _variables(
    prefix: str, group: BaseModel, changed: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    for key, value in changed.items():
        name, inner = prefix + key.upper(), getattr(group, key)
        if isinstance(inner, BaseModel):
            yield from _variables(f"{name}__", inner, value)
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings. Raises SettingsError naming each setting that is wrong."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError as SourceError

    unknown = unknown_names(os.environ, Settings.model_fields)
    if unknown:
        raise SettingsError("settings are wrong; correct these: " + "; ".join(unknown))
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()
        ]
        raise SettingsError("settings are wrong; correct these: " + "; ".join(lines)) from error
    except (SourceError, ValueError) as error:
        raise SettingsError(f"settings cannot be read: {error}") from error

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.errors import SettingsError
from models.setting_sources import unknown_names
from models.settings import DEFAULT_WEIGHTS, Settings, load_settings


@pytest.fixture(autouse=True)
def _no_cluster_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)


@pytest.fixture
def toml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that PALATE_CONFIG names, to be written by the test."""
    path = tmp_path / "palate.toml"
    monkeypatch.setenv("PALATE_CONFIG", str(path))
    return path


def cluster(settings: Settings) -> tuple[str, bool]:
    return settings.kafka.bootstrap, settings.kafka.embedded


def test_without_any_setting_palate_starts_a_broker_of_its_own() -> None:
    assert cluster(load_settings()) == ("127.0.0.1:19092", True)


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"PALATE_KAFKA__PREFIX": "x."},
        {"PALATE_KAFKA": '{"partitions": 12}'},
        {
            "PALATE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "PALATE_KAFKA__SASL_USERNAME": "palate",
            "PALATE_KAFKA__SASL_PASSWORD": "secret",
        },
        {"PALATE_KAFKA__BOOTSTRAP": "k1:9092"},
    ],
    ids=["alone", "prefix", "group", "SASL", "the same again"],
)
def test_the_short_form_names_the_cluster_whatever_else_is_set(
    others: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"KAFKA_BOOTSTRAP": "k1:9092", **others}.items():
        monkeypatch.setenv(name, value)
    assert cluster(load_settings()) == ("k1:9092", False)


def test_the_short_form_is_stronger_than_the_file(
    monkeypatch: pytest.MonkeyPatch, toml: Path
) -> None:
    toml.write_text('[kafka]\nbootstrap = "k2:9092"\nembedded = true\npartitions = 12\n')
    assert cluster(load_settings()) == ("k2:9092", True)
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "k1:9092")
    settings = load_settings()
    assert (cluster(settings), settings.kafka.partitions) == (("k1:9092", False), 12)


def test_two_clusters_in_the_environment_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "k1:9092")
    monkeypatch.setenv("PALATE_KAFKA__BOOTSTRAP", "k2:9092")
    assert cluster(load_settings()) == ("k2:9092", True)
    assert "KAFKA_BOOTSTRAP=k1:9092 is not used" in caplog.text


def test_an_argument_is_stronger_and_no_reason_to_warn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "k1:9092")
    settings = load_settings(kafka={"bootstrap": "k3:9092", "embedded": True})
    assert cluster(settings) == ("k3:9092", True)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("PALATE_TRIGER__EVIDENCE", "PALATE_TRIGGER__EVIDENCE"),
        ("PALATE_LOGLEVEL", "PALATE_LOG_LEVEL"),
        ("PALATE_KAFKA__PARTITION", "kafka.partition"),
        ("palate_workerz", "PALATE_WORKERS"),
    ],
)
def test_a_mistyped_name_is_refused(name: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "3")
    with pytest.raises(SettingsError, match=named):
        load_settings()


def test_a_mistyped_group_of_the_file_is_refused(toml: Path) -> None:
    toml.write_text("[triger]\nevidence = 3\n")
    with pytest.raises(SettingsError, match="triger"):
        load_settings()


def test_names_that_are_read_elsewhere_or_made_by_kubernetes_are_not() -> None:
    names = [
        *("PALATE_CONFIG", "PALATE_WORKER", "PATH", "PALATE_KAFKA", "palate_kafka__prefix"),
        *("PALATE_TRACKER_SERVICE_HOST", "PALATE_TRACKER_SERVICE_PORT_METRICS"),
        *("PALATE_TRACKER_PORT", "PALATE_TRACKER_PORT_19101_TCP_ADDR"),
    ]
    assert unknown_names(names, Settings.model_fields) == []


def test_a_gate_that_asks_for_what_is_not_measured_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PALATE_TRAIN__EVALUATION__KS", "[5, 20]")
    with pytest.raises(SettingsError, match=r"train\.gate\.metric is 'ndcg@10', .*evaluation\.ks"):
        load_settings()
    monkeypatch.setenv("PALATE_TRAIN__GATE__METRIC", "mrr")
    assert load_settings().train.gate.metric == "mrr"


def test_what_was_set_can_be_set_again_by_the_environment_it_is_told_as(
    monkeypatch: pytest.MonkeyPatch, toml: Path
) -> None:
    given = {
        "PALATE_LOG_LEVEL": "DEBUG",
        "PALATE_RANKING__EXCLUDE_SEEN": "true",
        "PALATE_TRAIN__CONTRASTIVE__LEARNING_RATE": "0.001",
        "PALATE_TRAIN__EVALUATION__AGAINST": '["star", "sasrec"]',
        "PALATE_TRAIN__RLSO__ROUNDS": "30",  # the default: nothing to tell
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    toml.write_text("[windows.weights]\n" + weights_in_toml(view=0.1))
    first = load_settings()
    told = first.environment()
    assert json.loads(told.pop("PALATE_WINDOWS__WEIGHTS"))["view"] == 0.1
    assert told == {name: value for name, value in given.items() if "ROUNDS" not in name}

    toml.write_text("")
    for name, value in first.environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == first


def test_a_secret_is_told_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALATE_PROFILE__API_KEY", "do-not-tell")
    assert load_settings().environment() == {"PALATE_PROFILE__API_KEY": "**********"}


def weights_in_toml(**changed: float) -> str:
    return "".join(f"{kind} = {x}\n" for kind, x in {**DEFAULT_WEIGHTS, **changed}.items())

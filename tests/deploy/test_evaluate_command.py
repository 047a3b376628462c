"""`palate evaluate` on small data: the table, the files, and what it refuses."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from deploy.cli import app
from models.errors import PalateError
from models.settings import load_settings
from tests.trainer.learning.tiny_embedder import tiny_embedder
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.baselines.counted import PopularitySystem, users_per_item
from trainer.data.corpus import Corpus
from trainer.evaluation import registry
from trainer.evaluation.context import Context
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.systems import System

SAMPLE = Path(__file__).parents[2] / "data" / "sample"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's first 100 customers and its whole catalogue."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copy(SAMPLE / "items.parquet", folder)
    table = pq.read_table(SAMPLE / "interactions.parquet")
    few = pc.unique(table["user_id"]).sort()[:100]
    pq.write_table(table.filter(pc.is_in(table["user_id"], few)), folder / "interactions.parquet")
    return folder


def palate(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def popularity_ndcg(corpus: Corpus) -> float:
    """NDCG@10 of the most popular items in the validation, by what `corpus` has counted."""
    system = PopularitySystem("popularity", users_per_item(corpus))
    chosen = load_settings().train.evaluation
    found = evaluate(corpus, [system], corpus.sessions.validation, chosen)
    return found.interval("popularity", "ndcg@10").mean


def test_a_table_is_printed_and_a_run_folder_written(data: Path, tmp_path: Path) -> None:
    said = palate(
        *("--data", data, "--system", "random", "--system", "popularity", "--users", 20),
        *("--ages", "--out", tmp_path),
    )

    head, _, *rows = (tmp_path / "ages.md").read_text().splitlines()[4:]
    assert head.startswith("| ndcg@10 | 0–1 days (")
    assert any(row.startswith("| popularity | 0.") for row in rows)
    assert "popularity" in said
    assert "ranked like all others" in said
    assert {path.name for path in tmp_path.iterdir()} >= {
        *("table.md", "results.json", "sessions.npz", "by-history.png", "by-age.png", "ages.md"),
    }


def test_json_is_what_is_written(data: Path, tmp_path: Path) -> None:
    said = palate(
        *("--data", data, "--system", "popularity", "--users", 20, "--mask-seen"),
        *("--protocol", "leave-one-out", "--out", tmp_path, "--json"),
    )

    found = orjson.loads(said)
    assert found == orjson.loads((tmp_path / "results.json").read_bytes())
    assert (found["protocol"], found["mask_seen"]) == ("leave-one-out", True)


def test_the_validation_is_ranked_without_having_counted_it(tmp_path: Path) -> None:
    chosen = ("--data", SAMPLE, "--split", "validation", "--system", "popularity")
    said = orjson.loads(palate(*chosen, "--out", tmp_path, "--json"))

    corpus = Corpus.from_folder(SAMPLE, load_settings())
    before = replace(corpus, known_events=corpus.training_events)
    honest, leaking = map(popularity_ndcg, (before, corpus))
    assert honest != pytest.approx(leaking, abs=1e-4)
    assert said["systems"]["popularity"]["metrics"]["ndcg@10"][0] == pytest.approx(honest, abs=1e-6)


def test_systems_that_write_profiles_are_measured_on_fewer_users(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALATE_TRAIN__EVALUATION__USERS", "7")
    popular = partial(registry.build_systems, ["popularity"])
    monkeypatch.setattr(registry, "build_systems", lambda _, context: popular(context))

    def users(system: str, *more: object) -> int:
        named = ("--data", data, "--system", system, *more, "--out", tmp_path, "--json")
        return int(orjson.loads(palate(*named))["counts"]["users"])

    assert users("profile+shuffled") == 7
    assert users("profile", "--users", 9) == 9
    assert users("popularity") > 9


def test_all_is_every_system_that_needs_nothing_but_the_data(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    build = registry.build_systems

    def popular(named: Sequence[str], context: Context) -> list[System]:
        asked.extend(named)
        return build(["popularity"], context)

    monkeypatch.setattr(registry, "build_systems", popular)
    palate("--data", data, "--all", "--system", "profile:x", "--users", 3, "--out", tmp_path)
    assert {*registry.names(), "profile", "profile+shuffled", "profile:x"} < {*asked}


def test_what_systems_read_is_described_beside_the_table(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALATE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PALATE_EMBEDDER__MODEL", str(tiny_embedder(tmp_path, ("red", "lunch"))))
    monkeypatch.setenv("PALATE_PROFILE__MODEL", str(tiny_llama(tmp_path / "llama")))

    palate(
        *("--data", data, "--system", "popularity", "--system", "extractive-profile"),
        *("--system", "extractive-profile-shuffled", "--users", 5, "--out", tmp_path / "run"),
    )

    rows = (tmp_path / "run" / "texts.md").read_text().splitlines()
    assert [row.split(" | ")[0] for row in rows if row.startswith("| e")] == [
        "| extractive-profile"
    ]
    assert not any("popularity" in row for row in rows)


def test_the_command_told_beside_the_table_has_the_settings_it_ran_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALATE_TRAIN__EVALUATION__AGAINST", '["popularity"]')
    monkeypatch.setenv("PALATE_KAFKA__PREFIX", "shop.")  # moves no figure
    found = orjson.loads(
        palate("--data", data, "--system", "popularity", "--out", tmp_path, "--json")
    )
    set_, _, _ = found["about"]["command"].partition(" ")
    assert shlex.split(set_) == ['PALATE_TRAIN__EVALUATION__AGAINST=["popularity"]']


def test_an_unknown_system_and_a_missing_folder_are_refused_by_name(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(PalateError, match="no system is called nosuch"):
        palate("--data", data, "--system", "nosuch", "--out", tmp_path)
    with pytest.raises(PalateError, match="not there"):
        palate("--data", tmp_path / "nowhere")

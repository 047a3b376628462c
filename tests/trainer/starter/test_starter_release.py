"""The whole way to a starter release, on a tiny random model and a few customers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.release.starter import read_starter
from models.settings import ProfileSettings, Settings
from models.training_settings import PolicySettings, TrainSettings, WarmStartSettings
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.data.held_out import held_out
from trainer.learning.warm_start import LOG
from trainer.pipeline.json_state import RunLog
from trainer.starter.material import Material, read_material
from trainer.starter.starter_release import ANSWERS, make_starter

pytestmark = pytest.mark.model  # reading all of the sample takes 20 s


@pytest.fixture(scope="module")
def whole() -> Material:
    return read_material(Settings())


@pytest.fixture(scope="module")
def material(whole: Material, tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A few examples, and a model that writes nonsense."""
    base = tiny_llama(tmp_path_factory.mktemp("tiny"))
    profile = ProfileSettings(model=str(base), max_new_tokens=160)
    train = TrainSettings(
        policy=PolicySettings(rank=2, alpha=4, max_prompt_tokens=1_200),
        warm_start=WarmStartSettings(steps=2, batch=2, micro_batch=2),
    )
    short = [one for one in whole.training if len(one.answer) < 150]
    return replace(
        whole,
        settings=Settings(profile=profile, train=train),
        training=short[:6],
        validation=[],
        measured=whole.measured[:3],
    )


def test_the_sample_s_held_out_customers_are_measured_and_no_other(whole: Material) -> None:
    assert all(held_out(request.user_id) for request in whole.measured)
    assert len(whole.measured) == 200
    assert 150 < whole.training_users < 300
    learned = {one.prompt for one in whole.training}
    assert not learned & {one.prompt for one in whole.validation}


def test_a_release_is_made_that_can_be_read_and_made_again(
    material: Material, tmp_path: Path
) -> None:
    made = make_starter(material, tmp_path / "work", tmp_path / "first")
    again = make_starter(material, tmp_path / "work", tmp_path / "second")

    starter = read_starter(tmp_path / "first")
    assert made == again == starter.release
    assert (made.kind, made.adapter, len(made.canary)) == ("starter", "adapter", 3)
    assert len(list(RunLog(tmp_path / "work" / LOG).records("step"))) == 2  # not trained again
    assert len((tmp_path / "work" / ANSWERS).read_text().splitlines()) == 3
    assert str(tmp_path) not in (tmp_path / "first" / "adapter_config.json").read_text()
    for name in ("manifest.json", "adapter_model.safetensors", "README.md"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()

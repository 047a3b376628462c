"""The stages of a training on a folder of data, with tiny models and the shipped sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.settings import Settings
from tests.trainer.learning.tiny_embedder import tiny_embedder
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.learning.__main__ import learn
from trainer.learning.profile_builders import Learned

pytestmark = pytest.mark.service  # half a minute of small training runs

SAMPLE = Path(__file__).parents[3] / "data" / "sample"
SMALL = {
    "policy": {"max_new_tokens": 16, "max_prompt_tokens": 1_600, "rank": 2},
    "warm_start": {"steps": 1, "batch": 2, "micro_batch": 2},
    "contrastive": {"steps": 2, "users": 6, "validation_users": 4, "batch": 4},
    "rlso": {"rounds": 1, "samples": 2, "prompts": 2, "batch": 2, "validation_users": 4},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    words = ["red", "retrospot", "bag", "white", "heart", "holder", "set", "of"]
    return (
        str(tiny_llama(tmp_path_factory.mktemp("llama"), positions=2_048)),
        str(tiny_embedder(tmp_path_factory.mktemp("embedder"), words)),
    )


@pytest.fixture
def settings(make_settings, models) -> Settings:
    language, embedder = models
    return make_settings(train=SMALL, profile={"model": language}, embedder={"model": embedder})


def test_what_all_stages_learned_stands_in_one_folder_that_can_be_evaluated(
    settings: Settings, tmp_path: Path
) -> None:
    learned = learn(settings, SAMPLE, None, tmp_path)

    assert [stage.name for stage in learned.stages] == ["warm-start", "contrastive-1", "rlso-1"]
    found = Learned.of(tmp_path / "learned")
    assert found.adapter == tmp_path / "learned" / "adapter"
    again = learn(settings, SAMPLE, None, tmp_path)
    assert [stage.steps for stage in again.stages] == [stage.steps for stage in learned.stages]


def test_a_stage_without_steps_is_left_out_and_a_start_is_gone_on_from(
    make_settings, models, settings: Settings, tmp_path: Path
) -> None:
    learn(settings, SAMPLE, None, tmp_path / "first")
    language, embedder = models
    only_cl = SMALL | {"rlso": {"rounds": 0}}
    fewer = make_settings(train=only_cl, profile={"model": language}, embedder={"model": embedder})

    learned = learn(fewer, SAMPLE, tmp_path / "first" / "learned", tmp_path / "second")

    assert [stage.name for stage in learned.stages] == ["contrastive-1"]
    weights = [
        (tmp_path / run / "learned" / "adapter" / "adapter_model.safetensors").read_bytes()
        for run in ("first", "second")
    ]
    assert weights[0] == weights[1]

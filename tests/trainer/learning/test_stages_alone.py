"""The stages of a training on a folder of data, with tiny models and the shipped sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.settings import Settings
from tests.trainer.learning.tiny_embedder import tiny_embedder
from tests.trainer.learning.tiny_models import tiny_llama
from trainer.learning.__main__ import learn
from trainer.learning.profile_builders import Learned

pytestmark = pytest.mark.model  # half a minute of small training runs

SAMPLE = Path(__file__).parents[3] / "data" / "sample"
SMALL = {
    "policy": {"max_prompt_tokens": 1_600, "rank": 2},
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
    profile = {"model": language, "max_new_tokens": 16}
    return make_settings(train=SMALL, profile=profile, embedder={"model": embedder})


def weights(run: Path) -> bytes:
    return (run / "learned" / "adapter" / "adapter_model.safetensors").read_bytes()


def test_what_was_learned_stands_in_one_folder_and_can_be_gone_on_from(
    make_settings, models, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "trainer.learning"):
        learned = learn(settings, SAMPLE, None, tmp_path / "first")

    told = [one.args for one in caplog.records if one.name == "trainer.learning"]
    stages = dict.fromkeys(stage for stage, _, _ in told)
    assert list(stages) == ["warm-start", "contrastive-1-profiles", "contrastive-1", "rlso-1"]
    assert all(done <= of for _, done, of in told)
    assert [stage.name for stage in learned.stages] == ["warm-start", "contrastive-1", "rlso-1"]
    folder = tmp_path / "first" / "learned"
    assert Learned.of(folder).adapter == folder / "adapter"

    language, embedder = models
    unjudged = SMALL["contrastive"] | {"validation_users": 0}
    only_cl = SMALL | {"rlso": {"rounds": 0}, "contrastive": unjudged}
    profile = {"model": language, "max_new_tokens": 16}
    fewer = make_settings(train=only_cl, profile=profile, embedder={"model": embedder})
    learned = learn(fewer, SAMPLE, folder, tmp_path / "second")

    assert [stage.name for stage in learned.stages] == ["contrastive-1"]  # 0 rounds: left out
    assert weights(tmp_path / "second") == weights(tmp_path / "first")
    assert Learned.of(tmp_path / "second" / "learned").embedder is not None  # of the last step

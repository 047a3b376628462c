"""RLSO on a corpus, with the shipped sample and the live system's own check."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx
import orjson
import pytest

from models.engines.tokens import token_counter
from models.errors import TrainingError
from models.fakes import HashEmbedder
from models.ports import Vectors
from models.settings import Settings
from models.training_settings import RlsoSettings, SessionSettings, TrainSettings
from tests.trainer.learning import planted
from tests.trainer.learning.served import Server
from trainer.data.corpus import Corpus
from trainer.learning.policy import Policy, PolicyOptions
from trainer.learning.rlso import LOG_FILE, identity_of, run_rlso

SAMPLE = Path(__file__).parents[3] / "data" / "sample"
TRAIN = TrainSettings(
    sessions=SessionSettings(per_user=1),
    rlso=RlsoSettings(samples=2, prompts=3, rounds=2, epochs=1, validation_users=5, min_tokens=0),
)


OPTIONS = PolicyOptions(max_new_tokens=8)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.from_folder(SAMPLE, Settings(train=TRAIN))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.model(tmp_path_factory.mktemp("planted"), positions=1_024)


def run(
    corpus: Corpus,
    source: Path,
    folder: Path,
    train: TrainSettings,
    embedder: HashEmbedder | None = None,
    max_tokens: int = 256,
) -> int:
    policy = Policy.load(source, OPTIONS, device="cpu")
    return run_rlso(
        corpus,
        policy,
        embedder or HashEmbedder(),
        train,
        folder,
        start=None,
        embedder_name="hash",
        mask_seen=False,
        max_tokens=max_tokens,
    ).rounds


def test_rounds_and_validations_are_logged_and_a_run_can_be_prolonged(
    corpus: Corpus, source: Path, tmp_path: Path
) -> None:
    longer = TRAIN.model_copy(update={"rlso": TRAIN.rlso.model_copy(update={"rounds": 3})})

    assert run(corpus, source, tmp_path, TRAIN) == 2
    assert run(corpus, source, tmp_path, longer) == 3

    records = [orjson.loads(line) for line in (tmp_path / LOG_FILE).read_bytes().splitlines()]
    rounds = [record for record in records if record["kind"] == "round"]
    validations = [record for record in records if record["kind"] == "validation"]
    assert [record["round"] for record in rounds] == [0, 1, 2]
    assert all(0 < record["ndcg"] < 1 for record in (*rounds, *validations))
    assert all(record["prompts"] == 3 for record in rounds)
    assert [len(record["users"]["ndcg"]) for record in validations] == [5, 5, 5]


def test_profiles_are_rewarded_at_the_length_that_they_are_served_with(
    corpus: Corpus, source: Path, tmp_path: Path
) -> None:
    class Reading(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            read.extend(texts)
            return super().embed(texts)

    def longest(max_tokens: int) -> int:
        read.clear()
        run(corpus, source, tmp_path / str(max_tokens), TRAIN, Reading(), max_tokens)
        catalogue = set(corpus.embedding_texts()[1])
        return max(count(text) for text in read if text not in catalogue)

    read: list[str] = []
    count = token_counter(source)
    assert longest(256) > 16 >= longest(16)


def test_other_settings_are_another_run(corpus: Corpus, source: Path, tmp_path: Path) -> None:
    other = TRAIN.model_copy(update={"rlso": TRAIN.rlso.model_copy(update={"eta": 9.0})})
    run(corpus, source, tmp_path, TRAIN)

    with pytest.raises(TrainingError, match="another run"):
        run(corpus, source, tmp_path, other)


def test_a_server_makes_the_rollouts_where_the_settings_name_one(
    corpus: Corpus, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    transport = httpx.MockTransport(server)
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=transport))
    chosen = {"vllm_url": "http://server/v1", "rounds": 3}
    served = TRAIN.model_copy(update={"rlso": TRAIN.rlso.model_copy(update=chosen)})

    assert run(corpus, source, tmp_path, TRAIN) == 2
    assert not server.asked
    assert run(corpus, source, tmp_path, served) == 3  # the same run, prolonged

    assert [body["n"] for body in server.asked] == [2] * 3 + [1] * 5  # a round and a validation
    assert (server.loaded, list((tmp_path / "adapters").iterdir())) == ([], [])


def test_the_start_what_is_ranked_and_the_length_of_texts_are_part_of_a_runs_name(
    corpus: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")

    names = {
        identity_of(corpus, "base", start, "hash", TRAIN, options, longest, mask_seen=masked)
        for start in (None, tmp_path)
        for masked in (False, True)
        for options in (OPTIONS, PolicyOptions(max_new_tokens=9))
        for longest in (256, 64)
    }

    assert len(names) == 16

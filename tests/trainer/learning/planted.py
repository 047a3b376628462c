"""A world with a planted preference: users of six tastes, each wants more of its own.

The language model knows ten words, is random, and small enough to learn within a minute. What
it is asked names the user's taste; the decoder ranks by words in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from models.ports import Vectors
from models.profile.assembly import Composed
from models.schemas import ProfileRequest, Sections, SentenceCounts
from models.settings import WindowSettings
from models.training_settings import RlsoSettings
from tests.trainer.learning.tiny_models import random_llama
from tests.trainer.users import session
from trainer.data.cases import Case, Prompted, cases
from trainer.data.sessions import request_of
from trainer.learning.policy import Policy, PolicyOptions
from trainer.learning.rlso import RlsoTask
from trainer.learning.rollouts import LocalRollouts
from trainer.reward.rewarder import Rewarder

TASTES = ("tea", "cats", "lace", "tins", "felt", "soap")
SPECIAL = ("<|endoftext|>", "<|im_end|>", "likes", "?")
ITEMS = {f"{taste}-{n}": taste for taste in TASTES for n in range(3)}
ROWS = {item: row for row, item in enumerate(ITEMS)}
POLICY = PolicyOptions(rank=8, alpha=16, max_prompt_tokens=64, max_new_tokens=8)
ANSWER_TOKENS = 4
RLSO = RlsoSettings(
    samples=4,
    prompts=12,
    epochs=2,
    batch=6,
    micro_batch=6,
    rounds=40,
    learning_rate=1e-2,
    eta=4.0,
    kl=0.0,
    temperature=1.0,
    min_tokens=1,
    max_tokens=ANSWER_TOKENS,
    validate_every=20,
    checkpoint_every=1,
)


class WordEmbedder:
    """TextEmbedder: one direction per taste, and one for all else."""

    model = "words"
    dimension = len(TASTES) + 1

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See TextEmbedder."""
        counts = [[text.split().count(taste) for taste in TASTES] + [0.1] for text in texts]
        vectors = np.array(counts, np.float32).reshape(len(texts), self.dimension)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def model(folder: Path, positions: int = 128) -> Path:
    """A random Llama of two layers with a tokenizer of ten words."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *TASTES))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": "?"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **tokens).save_pretrained(folder)
    end, pad = vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"]
    return random_llama(folder, len(vocabulary), positions, seed=1, end=end, pad=pad, spread=0.2)


def users(first: int, count: int) -> list[Case]:
    """Cases of users who bought the first item of their taste and go on with the others."""
    tastes = [TASTES[n % len(TASTES)] for n in range(first, first + count)]
    sessions = [
        session(f"{taste}-lover-{first + n}", (f"{taste}-0",), (f"{taste}-1", f"{taste}-2"))
        for n, taste in enumerate(tastes)
    ]
    return cases(sessions, ROWS, WindowSettings(), mask_seen=True)


def read(case: Case) -> Prompted:
    """The short prompt of a user."""
    request = request_of(case.session, WindowSettings(), ITEMS.__getitem__)
    taste = case.session.user_id.partition("-")[0]
    return Prompted(request, f"likes {taste} {taste} ?", case.target)


def unchecked(_: ProfileRequest, answer: str) -> Composed:
    """The answer itself as the profile, so that nothing but the reward can steer it."""
    return Composed(Sections(), answer, SentenceCounts(kept=1))


def task(
    folder: Path,
    source: Path,
    settings: RlsoSettings,
    training: Sequence[Case],
    held_out: Sequence[Case] = (),
) -> RlsoTask:
    """A run in `folder` on the model of `source`."""
    policy = Policy.load(source, POLICY, device="cpu")
    embedder = WordEmbedder()
    rewarder = Rewarder(embedder, embedder.embed(list(ITEMS.values())), unchecked, settings)
    local = LocalRollouts(policy, ANSWER_TOKENS)
    both = training, held_out
    return RlsoTask(policy, local, rewarder, rewarder, read, settings, folder, "planted", *both)

"""The embedded language model: transformers in this process, prompts in micro-batches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerBase,
    StoppingCriteria,
)
from transformers.utils import logging as transformers_logging

from models.engines.attention import write_word_by_word
from models.engines.batcher import MicroBatcher
from models.engines.model_files import ModelSource
from models.engines.pretrained import pretrained
from models.engines.tokens import token_counter
from models.errors import EngineError, EngineUnavailable
from models.ports import Adapter, Completion
from models.settings import ProfileSettings

END_OF_TURN = "<|im_end|>"
LINGER_S = 0.1  # on two busy cores a batch of 2 took 7 s, one of 8 took 11 s


class _Job(NamedTuple):
    prompt: str
    max_new_tokens: int
    model: str  # the adapter's name, if there is one
    network: AutoModelForCausalLM


class TransformersEncoder:
    """ProfileEncoder in this process, on a GPU if there is one.

    Up to `settings.batch` waiting prompts are continued together in one thread. A batch that
    takes longer than `settings.timeout_s` is cut there: its texts end early. Each adapter is a
    copy of the model with the adapter's weights in it, which costs memory and no time.
    """

    def __init__(self, source: ModelSource, settings: ProfileSettings) -> None:
        self.model = settings.model
        self._settings = settings
        self._count = token_counter(source)
        self._tokenizer, self._network = _load(source)
        self._adapted: dict[str, AutoModelForCausalLM] = {}  # by the adapter's name
        self._stop = stop_tokens(self._tokenizer)
        self._interrupt = _Interrupt()
        self._batcher: MicroBatcher[_Job, Completion] = MicroBatcher(
            self._continue, settings.batch, LINGER_S
        )

    async def complete(
        self, prompt: str, *, max_new_tokens: int, adapter: str | None = None
    ) -> Completion:
        """See ProfileEncoder."""
        tokens = self.count_tokens(prompt)
        if tokens + max_new_tokens > self._network.config.max_position_embeddings:
            raise EngineError(f"a prompt of {tokens} tokens is longer than {self.model} can read")
        network = self._network_of(adapter)
        job = _Job(prompt, max_new_tokens, adapter or self.model, network)
        return await self._batcher.submit(job)

    async def prepare(self, adapter: Adapter) -> None:
        """See ProfileEncoder; takes a second or two for the default model."""
        if adapter.name not in self._adapted:
            network = await asyncio.to_thread(_merged, self._network, adapter.folder)
            self._adapted[adapter.name] = network

    async def keep(self, adapters: Collection[str]) -> None:
        """See ProfileEncoder; jobs under way hold the network that they began with."""
        for name in self._adapted.keys() - set(adapters):
            del self._adapted[name]

    async def log_prob(self, prompt: str, text: str, *, adapter: str | None = None) -> float:
        """See ProfileEncoder."""
        network = self._network_of(adapter)
        return await asyncio.to_thread(self._log_prob, network, prompt, text)

    def _network_of(self, adapter: str | None) -> AutoModelForCausalLM:
        if adapter is None:
            return self._network
        if adapter not in self._adapted:
            raise EngineUnavailable(f"adapter {adapter!r} is not loaded into {self.model}")
        return self._adapted[adapter]

    def _log_prob(self, network: AutoModelForCausalLM, prompt: str, text: str) -> float:
        read, measured = (
            self._tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, text)
        )
        ids = torch.tensor([read + measured], device=network.device)
        with torch.inference_mode():
            logits = network(input_ids=ids[:, :-1]).logits[0, len(read) - 1 :].float()
        told = logits.log_softmax(-1).gather(-1, ids[0, len(read) :, None])
        return float(told.sum())

    def count_tokens(self, text: str) -> int:
        """See ProfileEncoder."""
        return self._count(text)

    async def healthy(self) -> bool:
        """Always: the model is in memory."""
        return True

    async def close(self) -> None:
        """Cut the batch under way and stop; its callers are cancelled."""
        self._interrupt.now.set()
        await self._batcher.close()

    def _continue(self, jobs: Sequence[_Job]) -> list[Completion]:
        """Jobs for one network go together."""
        done: dict[int, Completion] = {}
        for model in dict.fromkeys(job.model for job in jobs):
            places = [place for place, job in enumerate(jobs) if job.model == model]
            answers = self._continue_together([jobs[place] for place in places])
            done |= zip(places, answers, strict=True)
        return [done[place] for place in range(len(jobs))]

    def _continue_together(self, jobs: Sequence[_Job]) -> list[Completion]:
        started = time.perf_counter()
        prompts = self._tokenizer(
            [job.prompt for job in jobs],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        ).to(self._network.device)
        longest = max(job.max_new_tokens for job in jobs)
        written = self._generate(jobs[0].network, prompts, longest)
        latency_ms = (time.perf_counter() - started) * 1000
        read = prompts["attention_mask"].sum(dim=1).tolist()
        return [
            self._completion(row, job, prompt_tokens, latency_ms)
            for row, job, prompt_tokens in zip(written.tolist(), jobs, read, strict=True)
        ]

    def _generate(
        self, network: AutoModelForCausalLM, prompts: dict[str, torch.Tensor], new_tokens: int
    ) -> torch.Tensor:
        """[jobs, ≤ new_tokens] ids of what was written, padded on the right."""
        sampling = self._settings.temperature > 0
        chosen = {"temperature": self._settings.temperature} if sampling else {}
        torch.manual_seed(self._settings.seed)
        try:
            with torch.inference_mode():
                ids = network.generate(
                    **prompts,
                    **chosen,
                    do_sample=sampling,
                    max_new_tokens=new_tokens,
                    max_time=self._settings.timeout_s,
                    stopping_criteria=[self._interrupt],
                    repetition_penalty=self._settings.repetition_penalty,
                    eos_token_id=self._stop,
                    pad_token_id=self._tokenizer.pad_token_id,
                )
        except RuntimeError as error:  # out of memory, mostly: a smaller batch may pass
            raise EngineUnavailable(f"{self.model} failed: {error}") from error
        return ids[:, prompts["input_ids"].shape[1] :]

    def _completion(
        self, row: list[int], job: _Job, prompt_tokens: int, latency_ms: float
    ) -> Completion:
        ids = row[: job.max_new_tokens]
        end = next((n for n, token in enumerate(ids) if token in self._stop), len(ids))
        text = self._tokenizer.decode(ids[:end], skip_special_tokens=True)
        return Completion(text, prompt_tokens, end, latency_ms, job.model)


class _Interrupt(StoppingCriteria):
    """Ends generation at the next token once `now` is set, so that closing takes no batch long."""

    def __init__(self) -> None:
        self.now = threading.Event()

    def __call__(self, ids: torch.Tensor, _scores: torch.Tensor, **_: object) -> torch.Tensor:
        """[prompts]: whether each of them is done."""
        return torch.full((len(ids),), self.now.is_set(), device=ids.device)


def _merged(network: AutoModelForCausalLM, adapter: Path) -> AutoModelForCausalLM:
    from models.engines.merging import merged  # peft takes seconds to import

    return merged(network, adapter)


def _load(source: ModelSource) -> tuple[PreTrainedTokenizerBase, AutoModelForCausalLM]:
    transformers_logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer, network = pretrained(source)
    except (OSError, ValueError) as error:
        raise EngineError(f"the language model {source} cannot be loaded: {error}") from error
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    network = network.to(device).eval()
    write_word_by_word(network)
    return tokenizer, network


def stop_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """End of text and, for models with chat markup, end of turn."""
    end_of_turn = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    found = {tokenizer.eos_token_id, end_of_turn} - {None, tokenizer.unk_token_id}
    return sorted(found)

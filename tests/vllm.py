"""A real vLLM server on CPU with the bundled model and a small LoRA beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.vllm_server import VllmServer, has_gpu, options_of
from models.engines.model_files import language_model
from models.settings import Settings, load_settings
from tests.ports import free_port

LORA = "taste-1"


@dataclass(frozen=True, slots=True)
class Served:
    """Where the server answers and under which names."""

    base_url: str
    model: str
    lora: str


@contextmanager
def vllm_server(folder: Path, models_dir: Path) -> Iterator[Served]:
    """Start it, wait until it answers, stop it."""
    url = f"http://127.0.0.1:{free_port()}/v1"
    settings = load_settings(
        data_dir=folder, models_dir=models_dir, profile={"base_url": url, "max_new_tokens": 64}
    )
    adapter = write_adapter(settings, folder / "adapter")
    options = options_of(settings, language_model(settings), gpu=has_gpu(), loras={LORA: adapter})
    server = VllmServer(settings, options)
    server.start()
    try:
        server.wait_ready()
        yield Served(url, options.name, LORA)
    finally:
        server.stop()


def write_adapter(settings: Settings, folder: Path) -> Path:
    """An adapter of rank 8 with random weights: it changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_pretrained(language_model(settings), dtype=torch.bfloat16)
    config = LoraConfig(
        r=8,
        lora_alpha=32,
        target_modules="all-linear",
        init_lora_weights=False,  # the default makes B zero, which would change nothing
        task_type="CAUSAL_LM",
    )
    get_peft_model(network, config).save_pretrained(folder)
    return folder

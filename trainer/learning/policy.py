"""The profile model as a policy: a frozen base, a LoRA adapter that learns, a reference.

All log-probabilities (of the policy that sampled, of the reference, of the policy that learns)
come from `token_log_probs` (methods §8.1): one code path, so that their differences are the
policies' and not two kernels'.

The base keeps the precision that it is stored in (bfloat16 for the default model), the adapter
learns in float32: steps of 1e-4 would vanish in bfloat16. On a processor with bfloat16
instructions, forward and backward of 4 × 250 tokens took 6 s of one core over a bfloat16 base
and 8 s over a float32 one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from models.durable import making
from models.engines.attention import write_word_by_word
from models.engines.model_files import ModelSource, refuse_pickles
from models.engines.pretrained import pretrained
from models.engines.transformers_encoder import END_OF_TURN, stop_tokens
from models.errors import TrainingError
from models.settings import Settings
from models.training_settings import PolicySettings
from trainer.learning.packing import Rollout, chosen_log_probs, pack
from trainer.learning.sampling import draw

__all__ = ["Policy", "PolicyOptions", "Rollout", "policy_options"]

ROWS: Final = 64  # completions written at once; more need more memory and are not faster

_LEARNING: Final = "default"  # PEFT's name of the adapter that learns
_REFERENCE: Final = "reference"


class PolicyOptions(PolicySettings):
    """What a policy is made with: its settings, and how much it writes where it serves."""

    max_new_tokens: int  # of an answer, a rollout or a target


def policy_options(settings: Settings) -> PolicyOptions:
    """A policy that writes as much as it may in service."""
    written = settings.profile.max_new_tokens
    return PolicyOptions(**settings.train.policy.model_dump(), max_new_tokens=written)


class Policy:
    """A causal language model with a LoRA adapter on all linear layers. Not thread-safe."""

    def __init__(
        self,
        network: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: PolicyOptions,
        name: str,
    ) -> None:
        self.name = name
        self.settings = settings
        self._network = network
        self._tokenizer = tokenizer
        self._stop = stop_tokens(tokenizer)
        self._pad = int(tokenizer.pad_token_id)

    @classmethod
    def load(
        cls,
        source: ModelSource,
        settings: PolicyOptions,
        *,
        adapter: Path | None = None,
        reference: Path | None = None,
        seed: int = 0,
        device: str | None = None,
    ) -> Policy:
        """The base of `source` with the adapter of folder `adapter`, or a fresh one from `seed`.

        A fresh adapter changes nothing yet. `reference`: folder of the adapter that
        `reference()` runs; None: the base alone. Raises TrainingError if one cannot be loaded.
        """
        transformers_logging.disable_progress_bar()
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            for folder in filter(None, (adapter, reference)):
                refuse_pickles(folder)
            tokenizer, base = pretrained(source)
            base = base.to(device)
            write_word_by_word(base)
            network = _with_adapter(base, settings, adapter, seed)
            if reference is not None:
                network.load_adapter(str(reference), _REFERENCE)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise TrainingError(
                f"no policy can be made of {source} and adapter {adapter}: {error}. A file there "
                "is missing, cut short or of another model: restore it (palate releases show ID "
                "names a release's damaged files)"
            ) from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return cls(network.eval(), tokenizer, settings, Path(str(source)).name)

    def parameters(self) -> list[torch.nn.Parameter]:
        """What learns: the adapter's matrices, float32."""
        return [p for name, p in self._network.named_parameters() if f".{_LEARNING}." in name]

    def prompt_ids(self, prompt: str) -> tuple[int, ...]:
        """Tokens of a rendered prompt; nothing is added."""
        return tuple(self._tokenizer(prompt, add_special_tokens=False)["input_ids"])

    def fits(self, prompt: str) -> bool:
        """Whether a prompt is short enough to be trained on."""
        return len(self.prompt_ids(prompt)) <= self.settings.max_prompt_tokens

    def count_tokens(self, text: str) -> int:
        """Number of tokens of `text`."""
        return len(self.prompt_ids(text))

    def completion_tokens(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Rollout]:
        """Written answers as rollouts, each ended by the end of turn: for supervised training.

        A text longer than `max_new_tokens` is cut there and not ended.
        """
        return [
            self._written(self.prompt_ids(prompt), (*self.prompt_ids(text), self._end), text)
            for prompt, text in zip(prompts, texts, strict=True)
        ]

    def _written(self, prompt: tuple[int, ...], ids: tuple[int, ...], text: str) -> Rollout:
        most = self.settings.max_new_tokens
        return Rollout(prompt, ids[:most], text, finished=len(ids) <= most)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens at which a completion ends."""
        return tuple(self._stop)

    @property
    def _end(self) -> int:
        """End of turn; for models without chat markup, end of text."""
        end = self._tokenizer.convert_tokens_to_ids(END_OF_TURN)
        return end if end in self._stop else self._stop[0]

    def sample(
        self,
        prompts: Sequence[str],
        k: int,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        seed: int,
    ) -> list[list[Rollout]]:
        """[prompts][k] completions; the same arguments give the same ones.

        Temperature 0 writes the likeliest completion. Raises TrainingError for a prompt that
        is longer than `max_prompt_tokens`: `fits` tells.
        """
        read = [self._checked(prompt) for prompt in prompts]
        generator = torch.Generator(self._network.device).manual_seed(seed)
        at_once = max(1, ROWS // k)
        written: list[list[int]] = []
        with self._folded():
            for start in range(0, len(read), at_once):
                written += draw(
                    self._network,
                    read[start : start + at_once],
                    k,
                    max_new_tokens=max_new_tokens or self.settings.max_new_tokens,
                    temperature=temperature,
                    stop=self._stop,
                    pad=self._pad,
                    generator=generator,
                )
        return [
            [self._rollout(ids, written[number * k + sample]) for sample in range(k)]
            for number, ids in enumerate(read)
        ]

    @contextmanager
    def _folded(self) -> Iterator[None]:
        """Within it the adapter stands in the base's weights, as `merging.merged` puts it there.

        A word is written in 0.6 of the time, and as the release will write it. The base's own
        weights come back as they were: taking the adapter off would leave rounding in them, which
        is also why nothing is folded in where the adapter is off.
        """
        lora = (one for one in self._network.modules() if isinstance(one, LoraLayer))
        layers = [layer for layer in lora if not layer.disable_adapters]
        held = [one.get_base_layer().weight.data for one in layers]
        try:
            for layer, weights in zip(layers, held, strict=True):
                (active,) = layer.active_adapters
                summed = weights.float() + layer.get_delta_weight(active).detach()
                layer.get_base_layer().weight.data = summed.to(weights.dtype)
                layer.merged_adapters.append(active)
            yield
        finally:
            for layer, weights in zip(layers, held, strict=True):
                layer.get_base_layer().weight.data = weights
                layer.merged_adapters.clear()

    def _checked(self, prompt: str) -> tuple[int, ...]:
        ids = self.prompt_ids(prompt)
        if len(ids) > self.settings.max_prompt_tokens:
            raise TrainingError(
                f"a prompt has {len(ids)} tokens, more than train.policy.max_prompt_tokens"
                f" ({self.settings.max_prompt_tokens}): leave it out or raise the setting"
            )
        return ids

    def _rollout(self, prompt: tuple[int, ...], ids: Sequence[int]) -> Rollout:
        finished = ids[-1] in self._stop
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return Rollout(prompt, tuple(ids), text, finished)

    def token_log_probs(
        self, rollouts: Sequence[Rollout], *, temperature: float = 1.0
    ) -> list[torch.Tensor]:
        """Per rollout [completion tokens]: log-probabilities at logits / `temperature`.

        In float32, with gradients to `parameters()` unless torch.no_grad() is on. All rollouts
        go through one forward pass, in which those of one prompt share it: the caller chooses
        how many fit into memory (about 1 MB per completion token for 49,152 words).
        """
        packed = pack(rollouts, self._pad)
        device, dtype = self._network.device, self._network.dtype
        hidden = torch.finfo(dtype).min
        mask = torch.zeros(packed.visible.shape, dtype=dtype).masked_fill(~packed.visible, hidden)
        logits = self._network(
            input_ids=packed.ids.to(device),
            position_ids=packed.positions.to(device),
            attention_mask=mask.to(device),
            use_cache=False,
            logits_to_keep=packed.ids.shape[1] - packed.width + 1,
        ).logits
        return chosen_log_probs(logits, packed, temperature)

    def log_probs(
        self, rollouts: Sequence[Rollout], *, temperature: float = 1.0
    ) -> torch.Tensor:  # [rollouts]
        """Σ of `token_log_probs` per rollout, the end of turn included (methods §8.1)."""
        return torch.stack(
            [one.sum() for one in self.token_log_probs(rollouts, temperature=temperature)]
        )

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within it this policy is the reference, without gradients."""
        with torch.no_grad():
            if _REFERENCE not in self._network.peft_config:
                with self._network.disable_adapter():
                    yield
                return
            self._network.set_adapter(_REFERENCE, inference_mode=True)
            try:
                yield
            finally:
                self._network.set_adapter(_LEARNING)

    def state(self) -> dict[str, torch.Tensor]:
        """The adapter's matrices by name, for checkpoints; float32 copies on the CPU."""
        held = get_peft_model_state_dict(
            self._network,
            adapter_name=_LEARNING,
            save_embedding_layers=False,  # they are not trained; "auto" asks the hub
        )
        return {name: tensor.detach().cpu().clone() for name, tensor in held.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put the adapter where `state` found it."""
        set_peft_model_state_dict(self._network, dict(state), adapter_name=_LEARNING)

    def save(self, folder: Path) -> None:
        """Write a PEFT folder in bfloat16, which PEFT and vLLM load; the same bytes every time.

        It takes the place of `folder`, once it is whole.
        """
        weights = {name: tensor.bfloat16().contiguous() for name, tensor in self.state().items()}
        with making(folder, replace=True) as draft:
            save_file(weights, draft / "adapter_model.safetensors", metadata={"format": "pt"})
            self._portable_config().save_pretrained(str(draft))

    def _portable_config(self) -> LoraConfig:
        config = self._network.peft_config[_LEARNING]
        # Where the base lies on this machine is nobody's business; a set has no order to keep.
        portable = LoraConfig(
            **{
                **config.to_dict(),
                "base_model_name_or_path": self.name,
                "inference_mode": True,
            }
        )
        portable.target_modules = sorted(config.target_modules)
        return portable


def _with_adapter(
    base: torch.nn.Module, settings: PolicySettings, adapter: Path | None, seed: int
) -> PeftModel:
    if adapter is not None:
        return PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,  # methods §8.1; log-probabilities must not be drawn by chance
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(base, config)

"""The same rounds by TRL's RLOOTrainer, its own loop timed from outside."""

from __future__ import annotations

import random
import tempfile
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import RLOOConfig, RLOOTrainer

from deploy.bench.contestants import rollout_work as work
from models.engines.threads import wait_without_spinning


class TimedTrainer(RLOOTrainer):
    """Its generation counts as rollouts, all else of a training step as learning."""

    done: work.WorkSeconds

    def _generate(self, prompts: list[Any]) -> Any:
        with self.done.rolling_out():
            found = super()._generate(prompts)
        self.done.rounds += 1
        self.done.tokens += sum(map(len, found[1]))
        return found

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """One optimiser step; where it begins a round, with the round's rollouts."""
        rolled, rolled_cpu = self.done.rollouts_s, self.done.rollouts_cpu_s
        with self.done.learning():
            loss = super().training_step(*arguments, **options)
        self.done.learning_s -= self.done.rollouts_s - rolled
        self.done.learning_cpu_s -= self.done.rollouts_cpu_s - rolled_cpu
        self.done.steps += 1
        if self.done.rounds == 1 and self.done.steps == work.STEPS and not self.warm:
            self.done, self.warm = work.WorkSeconds(), True  # the first round does not count
        return loss

    warm = False


def main() -> None:
    """Train for one round and those that count."""
    wait_without_spinning()
    model, prompts, rounds, out = work.arguments()
    lot = random.Random(work.SEED)
    trainer = TimedTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype="auto"),
        reward_funcs=lambda completions, **_: [lot.random() for _ in completions],
        args=config(rounds),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
    )
    trainer.done = work.WorkSeconds()
    trainer.train()
    trainer.done.write(out)


def config(rounds: int) -> RLOOConfig:
    """The same sizes as Palate's; no gradient checkpointing, which saves memory for time."""
    return RLOOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=work.STEP_PROMPTS * work.SAMPLES,
        steps_per_generation=work.PROMPTS // work.STEP_PROMPTS,
        num_generations=work.SAMPLES,
        num_iterations=work.EPOCHS,
        max_completion_length=work.NEW_TOKENS,
        max_steps=(rounds + 1) * work.STEPS,
        learning_rate=work.LEARNING_RATE,
        beta=work.KL,
        temperature=1.0,
        seed=work.SEED,
        bf16=False,  # the base keeps the precision that it is stored in, as in Palate
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
    )


if __name__ == "__main__":
    main()

"""A language model of a few thousand weights, random, for tests of the loops around it."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tiny_llama(
    folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, positions: int = 512
) -> Path:
    """A folder with a byte-level tokenizer (one token a byte, ChatML's marks) and a Llama."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(SPECIAL + bytes_)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[:2]})
    tokenizer.save_pretrained(folder)
    return random_llama(folder, len(vocabulary), positions, seed, dtype, end=2, pad=2)


def random_llama(
    folder: Path,
    words: int,
    positions: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    **special: int | float,
) -> Path:
    """Two layers of random weights; `special`: `end`, `pad`, and `spread` of the weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        initializer_range=special.get("spread", 0.02),
        bos_token_id=1,
        eos_token_id=special["end"],
        pad_token_id=special["pad"],
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder

"""A sentence-transformers model of a few thousand weights that knows a list of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def tiny_embedder(folder: Path, words: Sequence[str], seed: int = 0) -> Path:
    """A folder that loads as an embedder of 16 dimensions with mean pooling."""
    base = folder / "base"
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(base)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(base)
    network = Transformer(str(base), max_seq_length=32)
    made = SentenceTransformer(modules=[network, Pooling(16, pooling_mode="mean"), Normalize()])
    made.save(str(folder / "embedder"), create_model_card=False)
    return folder / "embedder"

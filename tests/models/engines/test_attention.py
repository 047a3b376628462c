"""Writing word by word on a processor: the same numbers as transformers' own attention."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from models.engines.attention import write_word_by_word

PROMPTS = torch.tensor([[9, 9, 5, 6, 7], [1, 2, 3, 4, 8]])  # the first is padded on the left
SEEN = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


def llama(heads: int, key_heads: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        initializer_range=0.3,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).eval()


def written(network: LlamaForCausalLM, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Six greedy words of each prompt, and the scores that they were chosen by."""
    with torch.inference_mode():
        found = network.generate(
            PROMPTS,
            attention_mask=seen,
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=9,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return found.sequences, torch.stack(found.logits)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("seen", [SEEN, torch.ones_like(SEEN)], ids=["padded", "whole"])
def test_words_and_their_scores_are_those_of_sdpa(key_heads: int, seen: torch.Tensor) -> None:
    plain, ours = llama(4, key_heads), llama(4, key_heads)
    write_word_by_word(ours)

    words, scores = written(ours, seen)
    expected_words, expected_scores = written(plain, seen)

    assert torch.equal(words, expected_words)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-4, atol=1e-4)


def test_a_word_is_written_by_it_and_a_prompt_is_read_by_sdpa(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = llama(4, 2)
    write_word_by_word(network)
    used = AttentionInterface()[network.config._attn_implementation]
    read: list[int] = []

    def counted(module: object, query: torch.Tensor, *rest: object, **others: object) -> object:
        read.append(query.shape[2])
        return used(module, query, *rest, **others)

    monkeypatch.setitem(
        AttentionInterface._global_mapping, network.config._attn_implementation, counted
    )
    written(network, SEEN)

    assert read == [5, 5] + [1, 1] * 5


def test_a_model_with_an_attention_of_its_own_keeps_it() -> None:
    network = llama(4, 2)
    network.set_attn_implementation("eager")

    write_word_by_word(network)

    assert network.config._attn_implementation == "eager"

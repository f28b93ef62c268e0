"""A model in the shape of Qwen2.5 with random weights: as fast and large as the real one, with no download."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

_SHAPES = {
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
}
_END = "<end>"


def random_config(size: str) -> Qwen2Config:
    """The configuration of the Qwen2.5 of that size."""
    return Qwen2Config(**_SHAPES[size], num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=0, pad_token_id=0)


def save_random_model(size: str, folder: Path) -> None:
    """A Hugging Face folder in bf16, with a tokenizer of one token a character."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(random_config(size), dtype=torch.bfloat16).save_pretrained(folder)
    vocabulary = {token: number for number, token in enumerate([_END, *string.printable])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_END, unk_token=_END)
    whole.save_pretrained(folder)

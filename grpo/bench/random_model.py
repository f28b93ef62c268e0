"""A model in the shape of Qwen2.5 with random weights: as fast and large as the real one, with no download."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast

_SHAPES = {
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
}
_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
_END = "<end>"


def random_config(size: str) -> PretrainedConfig:
    """The configuration of the Qwen2.5 of that size."""
    return AutoConfig.for_model(
        "qwen2",
        **_SHAPES[size],
        num_key_value_heads=2,
        vocab_size=151936,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
    )


def save_random_model(size: str, folder: Path) -> None:
    """A Hugging Face folder in bf16, with a tokenizer of one token a character."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(random_config(size), dtype=torch.bfloat16).save_pretrained(folder)
    vocabulary = {_END: 0} | {character: number for number, character in enumerate(_CHARACTERS, 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_END, unk_token=_END)
    whole.save_pretrained(folder)

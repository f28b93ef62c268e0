"""A model small enough for every test: a random two-layer Llama over single characters, in Hugging Face format."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<end>"
CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character, so that text and ids are the same thing seen twice."""
    vocabulary = {END: 0, "<unknown>": 1} | {char: number for number, char in enumerate(CHARACTERS, 2)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, unk_token="<unknown>")


def tiny_config(**changes: object) -> LlamaConfig:
    settings: dict[str, object] = {
        "vocab_size": len(CHARACTERS) + 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
        "bos_token_id": None,
        "pad_token_id": 0,
        # Larger than usual, so that the random model has opinions that a change of its weights can change.
        "initializer_range": 0.1,
    }
    return LlamaConfig(**(settings | changes))


CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def make_tiny_model(folder: Path, *, chat: bool = False, **changes: object) -> Path:
    """Save a model with fixed random weights, and its tokenizer; returns the folder."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_config(**changes))
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder

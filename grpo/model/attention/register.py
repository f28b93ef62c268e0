"""Attention over packed prompt trees: every token sees its prompt and its own completion up to itself.

Registered in transformers' table of attention functions, so that any decoder model whose attention goes through that
table computes it unchanged; which tokens may see which travels with the call, as the keyword `tree_attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from grpo.batching.pack import TreeShape
from grpo.model.attention.cpu_trees import CpuTreeAttention
from grpo.model.attention.flex_trees import FlexTreeAttention

TREE_ATTENTION = "grpo_prompt_trees"
"""The `attn_implementation` of a model that computes packed trees."""


_UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some models ask of their attention, and this one does not compute."""


TreeAttention = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""From queries (1, H, T, d), keys and values (1, K, T, d), where K divides H, and a scale to outputs (1, T, H, d)."""


def make_tree_attention(shapes: Sequence[TreeShape], device: torch.device) -> TreeAttention:
    """How these trees are computed on a device: one after another on a CPU, by FlexAttention on a GPU."""
    return FlexTreeAttention(shapes, device) if device.type == "cuda" else CpuTreeAttention(shapes)


def attend_trees(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree_attention: TreeAttention,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """The function in transformers' table. Raises ValueError where a model asks for what it does not compute."""
    if strange := [name for name in _UNKNOWN if others.get(name) is not None] + ["dropout"] * bool(dropout):
        raise ValueError(f"{type(module).__name__}: asks its attention for {', '.join(strange)}, which trees have not")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return tree_attention(query, key, value, scale), None


AttentionInterface.register(TREE_ATTENTION, attend_trees)

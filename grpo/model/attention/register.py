"""Attention over packed prompt trees: every token sees its prompt and its own completion up to itself.

Registered in transformers' table of attention functions, so that any decoder model whose attention goes through that
table computes it unchanged; which tokens may see which travels with the call, as the keyword `tree_attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AttentionInterface

from grpo.batching.pack import TreeShape
from grpo.errors import UserError
from grpo.model.attention.flex_trees import FlexTreeAttention
from grpo.model.attention.tree_by_tree import TreeByTreeAttention
from grpo.model.compilation import missing_for_triton

TREE_ATTENTION = "grpo_prompt_trees"
"""The `attn_implementation` of a model that computes packed trees."""


_UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some models ask of their attention, and this one does not compute."""


TreeAttention = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""From queries (1, H, T, d), keys and values (1, K, T, d), where K divides H, and a scale to outputs (1, T, H, d)."""


AttentionKind = Literal["flex", "tree_by_tree"]


def choose_attention(wanted: Literal["auto", "flex", "tree_by_tree"], device: torch.device) -> AttentionKind:
    """What a recipe's `model.attention` comes to on a device: FlexAttention on a GPU that can compile it.

    Raises UserError where FlexAttention is asked for and cannot be had.
    """
    if wanted != "flex":
        possible = device.type == "cuda" and missing_for_triton() is None
        return "flex" if wanted == "auto" and possible else "tree_by_tree"
    if device.type != "cuda":
        raise UserError(
            f"model.attention=flex: FlexAttention has no backward pass on {device.type}; set it to auto or tree_by_tree"
        )
    if missing := missing_for_triton():
        raise UserError(f"model.attention=flex: {missing}; install it, or set model.attention to tree_by_tree")
    return "flex"


def fallback_note(wanted: str, device: torch.device) -> str | None:
    """A line for the user where `auto` on a GPU comes to less than it could; None where there is nothing to say."""
    missing = missing_for_triton() if wanted == "auto" and device.type == "cuda" else None
    return missing and f"model.attention: {missing}, so that attention goes tree by tree, which is slower"


def make_tree_attention(shapes: Sequence[TreeShape], device: torch.device, kind: AttentionKind) -> TreeAttention:
    """How these trees are computed, made once for all layers."""
    return FlexTreeAttention(shapes, device) if kind == "flex" else TreeByTreeAttention(shapes, device)


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

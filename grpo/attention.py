"""Attention over packed prompt trees: every token sees its prompt and its own completion up to itself.

Registered in transformers' table of attention functions, so that any decoder model whose attention goes through that
table computes it unchanged; which tokens may see which travels with the call, as the keyword `trees`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers import AttentionInterface

TREE_ATTENTION = "grpo_prompt_trees"
"""The `attn_implementation` of a model that computes packed trees."""

PLAIN_KEYS = 512
"""On a CPU, up to so many keys the scores are held whole: in bf16 that takes a third to a half of the time of torch's
fused kernel (measured at 117 to 512 keys), which needs less memory and is used beyond."""

_UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some models ask of their attention, and this one does not compute."""


@dataclass(frozen=True)
class TreeShape:
    """One tree in a packed sequence: `start` of its prompt, the prompt's length, and those of its branches, which
    follow in order. A branch is as long as its tokens that are inputs: its last one is none."""

    start: int
    prompt_length: int
    branch_lengths: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + self.prompt_length + sum(self.branch_lengths)


Trees = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""From queries (1, H, T, d), keys and values (1, K, T, d), where K divides H, and a scale to outputs (1, T, H, d)."""


def make_trees(shapes: Sequence[TreeShape], device: torch.device) -> Trees:
    """How these trees are computed on a device: one after another on a CPU, by FlexAttention on a GPU."""
    return FlexTrees(shapes, device) if device.type == "cuda" else TreeByTree(shapes)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    trees: Trees,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """The function in transformers' table. Raises ValueError where a model asks for what it does not compute."""
    if strange := [name for name in _UNKNOWN if others.get(name) is not None] + ["dropout"] * bool(dropout):
        raise ValueError(f"{type(module).__name__}: asks its attention for {', '.join(strange)}, which trees have not")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return trees(query, key, value, scale), None


AttentionInterface.register(TREE_ATTENTION, tree_attention)


class TreeByTree:
    """Prompt and branches apart, so that no pair of tokens is computed that does not see each other, but for the
    triangles above the diagonals and what pads the shorter branches of a tree."""

    def __init__(self, shapes: Sequence[TreeShape]) -> None:
        self._sizes = [size for shape in shapes for size in (shape.prompt_length, sum(shape.branch_lengths))]
        self._branches = [_Branches(shape.branch_lengths) for shape in shapes]
        self._biases: dict[tuple[int, int, int, torch.dtype], Tensor] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        parts = [torch.split(states[0].transpose(0, 1), self._sizes) for states in (queries, keys, values)]
        outputs = []
        for number, branches in enumerate(self._branches):
            q, k, v = (part[2 * number].transpose(0, 1)[None] for part in parts)
            outputs.append(self._attend(q, k, v, scale)[0])
            if branches.num_tokens:
                own_q, own_k, own_v = (branches.pad(part[2 * number + 1]) for part in parts)
                own_k, own_v = branches.after(k, own_k), branches.after(v, own_v)
                outputs.append(branches.unpad(self._attend(own_q, own_k, own_v, scale)))
        return torch.cat(outputs)[None]

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        """Causal attention of (B, H, M, d) to (B, K, N, d), whose last M keys are the queries' own: (B, M, H, d)."""
        batch, num_heads, length, size = queries.shape
        num_kv, num_keys = keys.shape[1:3]
        shared = num_heads // num_kv
        if num_keys > PLAIN_KEYS:
            k, v = (states.repeat_interleave(shared, 1) for states in (keys, values))
            bias = self._bias(length, num_keys, 1, queries.dtype)
            return functional.scaled_dot_product_attention(queries, k, v, attn_mask=bias, scale=scale).transpose(1, 2)
        # Query heads that share their keys are rows of one product.
        q = (queries * scale).reshape(batch * num_kv, shared * length, size)
        k, v = (states.reshape(batch * num_kv, num_keys, size) for states in (keys, values))
        scores = torch.baddbmm(self._bias(length, num_keys, shared, q.dtype), q, k.transpose(1, 2))
        return (scores.softmax(-1) @ v).view(batch, num_heads, length, size).transpose(1, 2)

    def _bias(self, length: int, num_keys: int, repeats: int, dtype: torch.dtype) -> Tensor:
        """What is added to the scores, (1, repeats x length, num_keys): made once for all layers."""
        key = (length, num_keys, repeats, dtype)
        if key not in self._biases:
            unseen = torch.ones(length, num_keys, dtype=torch.bool).triu(num_keys - length + 1)
            bias = torch.zeros(length, num_keys, dtype=dtype).masked_fill(unseen, float("-inf"))
            self._biases[key] = bias.repeat(repeats, 1)[None]
        return self._biases[key]


class _Branches:
    """The G branches of a tree as a batch, each padded to the longest, L, at its end: where nothing looks."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.num_tokens = sum(lengths)
        self._num = len(lengths)
        longest = max(lengths)
        padded: list[int] = []
        inside: list[int] = []
        start = 0
        for number, length in enumerate(lengths):
            padded += [min(start + index, self.num_tokens - 1) for index in range(longest)]
            inside += range(number * longest, number * longest + length)
            start += length
        self._padded, self._inside = torch.tensor(padded, dtype=torch.long), torch.tensor(inside, dtype=torch.long)

    def pad(self, states: Tensor) -> Tensor:
        """(tokens, H, d) to (G, H, L, d)."""
        rows: Tensor = _Pad.apply(states, self._padded, self._inside)  # type: ignore[no-untyped-call]
        return rows.view(self._num, -1, *states.shape[1:]).transpose(1, 2)

    def after(self, prompt: Tensor, own: Tensor) -> Tensor:
        """The prompt's states, (1, H, P, d), before those of each branch: (G, H, P + L, d)."""
        return torch.cat([prompt.expand(self._num, -1, -1, -1), own], 2)

    def unpad(self, states: Tensor) -> Tensor:
        """(G, L, H, d) to (tokens, H, d)."""
        rows: Tensor = _Unpad.apply(states.flatten(0, 1), self._inside)  # type: ignore[no-untyped-call]
        return rows


class _Pad(torch.autograd.Function):
    """Rows by number; what is handed back for padding is known to be nothing, and left out."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, padded: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return states.index_select(0, padded)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        ctx.shape = states.shape
        return states.index_select(0, inside)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0].new_zeros(ctx.shape).index_copy_(0, ctx.saved_tensors[0], grads[0]), None


class FlexTrees:
    """All trees in one call of FlexAttention, which skips the blocks in which nothing sees anything."""

    def __init__(self, shapes: Sequence[TreeShape], device: torch.device) -> None:
        tree_of, branch_of = numbered(shapes, device)

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same_path = (branch_of[key] == 0) | (branch_of[query] == branch_of[key])
            return (query >= key) & (tree_of[query] == tree_of[key]) & same_path

        size = len(tree_of)
        make_mask: Any = compiled(create_block_mask) if device.type == "cuda" else create_block_mask
        self._mask = make_mask(sees, None, None, size, size, device=device)

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        attend: Any = compiled(flex_attention) if queries.is_cuda else flex_attention
        output: Tensor = attend(queries, keys, values, block_mask=self._mask, scale=scale, enable_gqa=True)
        return output.transpose(1, 2)


def numbered(shapes: Sequence[TreeShape], device: torch.device) -> tuple[Tensor, Tensor]:
    """Each token's tree and branch (0 is the prompt), both (T,)."""
    sizes = [size for shape in shapes for size in (shape.prompt_length, *shape.branch_lengths)]
    trees = [number for number, shape in enumerate(shapes) for _ in range(1 + len(shape.branch_lengths))]
    branches = [number for shape in shapes for number in range(1 + len(shape.branch_lengths))]
    each = torch.tensor([trees, branches]).repeat_interleave(torch.tensor(sizes), dim=1).to(device)
    return each[0], each[1]


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """FlexAttention and its mask are made block by block only once they are compiled; else they hold all pairs."""
    return torch.compile(function)

"""The attention of packed prompt trees with ordinary products: the prompt and the branches of one tree after another.

What a CPU uses, and a GPU where FlexAttention cannot be compiled, or to compare with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from grpo.batching.pack import TreeShape

Ints = npt.NDArray[np.int64]
MAX_PLAIN_KEYS = 512
"""Up to so many keys the scores are held whole: in bf16 that takes a CPU a third to a half of the time of torch's fused
kernel (measured at 117 to 512 keys), which needs less memory and is used beyond."""


class TreeByTreeAttention:
    """Prompt and branches apart, so that no pair of tokens is computed that does not see each other, but for the
    triangles above the diagonals and what pads the shorter branches of a tree."""

    def __init__(self, shapes: Sequence[TreeShape], device: torch.device) -> None:
        self._sizes = [size for shape in shapes for size in (shape.prompt_length, sum(shape.branch_lengths))]
        self._branches = _make_branches(shapes, device)
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
        if num_keys > MAX_PLAIN_KEYS:
            k, v = (states.repeat_interleave(shared, 1) for states in (keys, values))
            bias = self._bias(length, num_keys, 1, queries.dtype, queries.device)
            return functional.scaled_dot_product_attention(queries, k, v, attn_mask=bias, scale=scale).transpose(1, 2)
        # Query heads that share their keys are rows of one product.
        q = (queries * scale).reshape(batch * num_kv, shared * length, size)
        k, v = (states.reshape(batch * num_kv, num_keys, size) for states in (keys, values))
        scores = torch.baddbmm(self._bias(length, num_keys, shared, q.dtype, q.device), q, k.transpose(1, 2))
        return (scores.softmax(-1) @ v).view(batch, num_heads, length, size).transpose(1, 2)

    def _bias(self, length: int, num_keys: int, repeats: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """What is added to the scores, (1, repeats x length, num_keys): made once for all layers."""
        key = (length, num_keys, repeats, dtype)
        if key not in self._biases:
            bias = torch.full((length, num_keys), float("-inf"), dtype=dtype, device=device)
            bias = bias.triu(num_keys - length + 1)
            self._biases[key] = bias.repeat(repeats, 1)[None]
        return self._biases[key]


class _Branches:
    """The G branches of a tree as a batch, each padded to the longest, L, at its end: where nothing looks.

    `padded` (G x L,) is the token that stands at each place of the batch, `inside` (tokens,) the place of each token.
    """

    def __init__(self, num: int, padded: Tensor, inside: Tensor) -> None:
        self.num_tokens = len(inside)
        self._num, self._padded, self._inside = num, padded, inside

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


def _plan(lengths: Sequence[int]) -> tuple[Ints, Ints]:
    """`padded` and `inside` of `_Branches`. What pads a branch is any token: of the next branch, or the last one."""
    sizes = np.array(lengths)
    starts, within = sizes.cumsum() - sizes, np.arange(sizes.max())
    padded = np.minimum(starts[:, None] + within, max(sizes.sum() - 1, 0))
    return padded.reshape(-1), (within < sizes[:, None]).reshape(-1).nonzero()[0]


def _make_branches(shapes: Sequence[TreeShape], device: torch.device) -> list[_Branches]:
    """The branches of all trees, their numbers copied to the device at once, which nothing waits for."""
    arrays = [array for shape in shapes for array in _plan(shape.branch_lengths)]
    flat = torch.from_numpy(np.concatenate(arrays).astype(np.int64))
    if device.type == "cuda":
        flat = flat.pin_memory()
    parts = torch.split(flat.to(device, non_blocking=True), [len(array) for array in arrays])
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [_Branches(len(shape.branch_lengths), *pair) for shape, pair in zip(shapes, pairs, strict=True)]


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

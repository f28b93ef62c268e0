"""The attention of packed prompt trees on a GPU: all of them in one call of FlexAttention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from grpo.batching.pack import TreeShape


class FlexTreeAttention:
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

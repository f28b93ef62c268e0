"""Packed prompt trees as the attention sees them, and who sees whom in them, filled in rectangle by rectangle."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from grpo.batching.pack import TreeShape

Forest = Sequence[tuple[int, tuple[int, ...]]]
"""For each tree its prompt's length and those of its branches, of which a completion of one token has one of none,
since its token is no input."""


def shapes_of(forest: Forest) -> list[TreeShape]:
    sizes = [prompt + sum(branches) for prompt, branches in forest]
    starts = itertools.accumulate(sizes, initial=0)
    return [TreeShape(start, *tree) for start, tree in zip(starts, forest, strict=False)]


def random_forest(draw: torch.Generator, num_trees: int, num_branches: int, longest: int) -> Forest:
    """Prompts of at least one token, branches of at least none."""
    lengths = torch.randint(longest + 1, (num_trees, 1 + num_branches), generator=draw).tolist()
    return [(1 + prompt, tuple(branches)) for prompt, *branches in lengths]


def visible(shapes: Sequence[TreeShape]) -> Tensor:
    """(T, T): True where the row's token sees the column's."""
    mask = torch.zeros(shapes[-1].stop, shapes[-1].stop, dtype=torch.bool)
    for shape in shapes:
        prompt = slice(shape.start, shape.start + shape.prompt_length)
        mask[prompt, prompt] = torch.ones(shape.prompt_length, shape.prompt_length).tril().bool()
        start = prompt.stop
        for length in shape.branch_lengths:
            branch = slice(start, start + length)
            mask[branch, prompt] = True
            mask[branch, branch] = torch.ones(length, length).tril().bool()
            start += length
    return mask


def random_states(num_tokens: int, num_heads: int, num_kv: int, size: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values whose scores differ by several, so that a wrong one shows."""
    draw = torch.Generator().manual_seed(5)
    shapes = [(1, heads, num_tokens, size) for heads in (num_heads, num_kv, num_kv)]
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]

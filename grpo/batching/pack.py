"""A micro-batch as tensors: several prompt trees in one sequence, each prompt computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo.records import PromptTree


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


@dataclass(frozen=True)
class Packed:
    """T input tokens and the N completion tokens that they predict.

    Per input token: `token_ids` and `position_ids`, both (1, T); `shapes` says which tokens belong to which tree.
    Per predicted token, shape (N,): `predictors` (index of the input token that predicts it), `targets`,
    `sampler_logps`, `advantages`, `weights`, and `completions` (the number of its completion, from 0 to
    `num_completions` - 1).
    """

    token_ids: Tensor
    position_ids: Tensor
    shapes: tuple[TreeShape, ...]
    predictors: Tensor
    targets: Tensor
    sampler_logps: Tensor
    advantages: Tensor
    weights: Tensor
    completions: Tensor
    num_completions: int


def pack(trees: Sequence[PromptTree], device: torch.device) -> Packed:
    """Lay the trees out one after another: prompt, first completion, second completion, …

    Positions go on from the prompt's end in every completion, and a completion's token sees its prompt and itself
    up to there. The last token of a completion predicts nothing, so it is a target but no input.

    Everything is laid out in NumPy and handed to the device in copies that nothing waits for.
    """
    shapes = _shapes(trees)
    branches = [branch for tree in trees for branch in tree.branches]
    lengths = np.array([len(branch.token_ids) for branch in branches])
    inputs = [
        part for tree in trees for part in (tree.prompt_ids, *(branch.token_ids[:-1] for branch in tree.branches))
    ]

    def per_token(values: Sequence[float]) -> NDArray[Any]:
        return np.repeat(np.asarray(values), lengths)

    to_device = _Mover(device)
    return Packed(
        token_ids=to_device(np.concatenate(inputs), torch.long)[None],
        position_ids=to_device(_positions(shapes), torch.long)[None],
        shapes=shapes,
        predictors=to_device(_predictors(shapes), torch.long),
        targets=to_device(np.concatenate([branch.token_ids for branch in branches]), torch.long),
        sampler_logps=to_device(np.concatenate([branch.sampler_logps for branch in branches]), torch.float32),
        advantages=to_device(np.concatenate([branch.advantages for branch in branches]), torch.float32),
        weights=to_device(per_token([branch.weight for branch in branches]), torch.float32),
        completions=to_device(per_token(range(len(branches))), torch.long),
        num_completions=len(branches),
    )


def _shapes(trees: Sequence[PromptTree]) -> tuple[TreeShape, ...]:
    shapes: list[TreeShape] = []
    for tree in trees:
        lengths = tuple(len(branch.token_ids) - 1 for branch in tree.branches)
        shapes.append(TreeShape(shapes[-1].stop if shapes else 0, len(tree.prompt_ids), lengths))
    return tuple(shapes)


def _positions(shapes: Sequence[TreeShape]) -> NDArray[np.int64]:
    """Of each input token: from 0 in a prompt, from the prompt's length on in each of its branches."""
    spans = [
        np.arange(first, first + length)
        for shape in shapes
        for first, length in ((0, shape.prompt_length), *((shape.prompt_length, one) for one in shape.branch_lengths))
    ]
    return np.concatenate(spans)


def _predictors(shapes: Sequence[TreeShape]) -> NDArray[np.int64]:
    """Of each completion token: the prompt's last token for the first, and for each next the one before it."""
    found = []
    for shape in shapes:
        start = shape.start + shape.prompt_length
        for length in shape.branch_lengths:
            found.append(np.arange(start - 1, start + length))
            found[-1][0] = shape.start + shape.prompt_length - 1
            start += length
    return np.concatenate(found)


class _Mover:
    """From NumPy to a device. To a GPU out of pinned memory, so that neither the copy nor the next kernel is waited
    for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, values: NDArray[Any], dtype: torch.dtype) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
        if self._device.type != "cuda":
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)

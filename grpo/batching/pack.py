"""A micro-batch as tensors: several prompt trees in one sequence, each prompt computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
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
    `sampler_logps`, `advantages`, `weights`, and `completions` (the number of its completion, from 0).
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


def pack(trees: Sequence[PromptTree], device: torch.device) -> Packed:
    """Lay the trees out one after another: prompt, first completion, second completion, …

    Positions go on from the prompt's end in every completion, and a completion's token sees its prompt and itself
    up to there. The last token of a completion predicts nothing, so it is a target but no input.
    """
    ids: list[int] = []
    positions: list[int] = []
    shapes: list[TreeShape] = []
    predictors: list[int] = []
    targets: list[int] = []
    per_token: list[tuple[float, float, float]] = []
    lengths: list[int] = []
    for tree in trees:
        length = len(tree.prompt_ids)
        shapes.append(TreeShape(len(ids), length, tuple(len(branch.token_ids) - 1 for branch in tree.branches)))
        ids += tree.prompt_ids
        positions += range(length)
        prompt_end = len(ids) - 1
        for branch in tree.branches:
            inputs = branch.token_ids[:-1]
            predictors += [prompt_end, *range(len(ids), len(ids) + len(inputs))]
            ids += inputs
            positions += range(length, length + len(inputs))
            targets += branch.token_ids
            per_token += zip(
                branch.sampler_logps, branch.advantages, [branch.weight] * len(branch.token_ids), strict=True
            )
            lengths.append(len(branch.token_ids))
    sampler_logps, advantages, weights = torch.tensor(per_token, device=device).unbind(-1)
    return Packed(
        token_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        shapes=tuple(shapes),
        predictors=torch.tensor(predictors, device=device),
        targets=torch.tensor(targets, device=device),
        sampler_logps=sampler_logps,
        advantages=advantages,
        weights=weights,
        completions=torch.arange(len(lengths), device=device).repeat_interleave(torch.tensor(lengths, device=device)),
    )

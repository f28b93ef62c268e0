"""A micro-batch as tensors: several prompt trees in one sequence, each prompt computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.types import PromptTree


@dataclass(frozen=True)
class Packed:
    """T input tokens and the N completion tokens that they predict.

    Per input token: `token_ids`, `position_ids` (both (1, T)) and `mask` (1, 1, T, T), True where a row's token
    sees a column's. Per predicted token, shape (N,): `predictors` (index of the input token that predicts it),
    `targets`, `sampler_logps`, `advantages`, `weights`.
    """

    token_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    predictors: Tensor
    targets: Tensor
    sampler_logps: Tensor
    advantages: Tensor
    weights: Tensor


def pack(trees: Sequence[PromptTree], device: torch.device) -> Packed:
    """Lay the trees out one after another: prompt, first completion, second completion, …

    Positions go on from the prompt's end in every completion, and a completion's token sees its prompt and itself
    up to there. The last token of a completion predicts nothing, so it is a target but no input.
    """
    ids: list[int] = []
    positions: list[int] = []
    tree_of: list[int] = []
    branch_of: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    per_token: list[tuple[float, float, float]] = []
    for number, tree in enumerate(trees):
        length = len(tree.prompt_ids)
        prompt_end = len(ids) + length - 1
        segments = [(0, 0, tree.prompt_ids)]
        segments += [(index, length, branch.token_ids[:-1]) for index, branch in enumerate(tree.branches, 1)]
        for index, first_position, tokens in segments:
            if index:
                predictors += [prompt_end, *range(len(ids), len(ids) + len(tokens))]
            ids += tokens
            positions += range(first_position, first_position + len(tokens))
            tree_of += [number] * len(tokens)
            branch_of += [index] * len(tokens)
        for branch in tree.branches:
            targets += branch.token_ids
            per_token += [(logp, branch.advantage, branch.weight) for logp in branch.sampler_logps]
    sampler_logps, advantages, weights = torch.tensor(per_token, device=device).unbind(-1)
    return Packed(
        token_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        mask=tree_mask(torch.tensor(tree_of, device=device), torch.tensor(branch_of, device=device)),
        predictors=torch.tensor(predictors, device=device),
        targets=torch.tensor(targets, device=device),
        sampler_logps=sampler_logps,
        advantages=advantages,
        weights=weights,
    )


def tree_mask(tree_of: Tensor, branch_of: Tensor) -> Tensor:
    """Who sees whom, (1, 1, T, T), from each token's tree and branch (0 is the prompt), both (T,)."""
    same_tree = tree_of[:, None] == tree_of[None, :]
    same_path = (branch_of[None, :] == 0) | (branch_of[:, None] == branch_of[None, :])
    return (same_tree & same_path).tril()[None, None]

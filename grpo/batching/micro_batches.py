"""Lessons to one batch: loss weights, the one denominator, and micro-batches of equal cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from grpo.recipe.sections import UpdateSection, normalisation_of
from grpo.records import Batch, Branch, CreditedGroup, PromptTree

ATTENTION_PAIRS_PER_TOKEN = 8192
"""So many pairs of tokens in the attention cost as much as one token in the matrices: about six times a model's hidden
size, with a head as large as usual. It only shares out work evenly, so one number serves all models."""


def make_batches(
    credited_groups: Sequence[CreditedGroup], settings: UpdateSection, max_new_tokens: int, num_ranks: int
) -> list[Batch]:
    """What each pass of the optimiser learns from: of N `mini_batches` every N-th group, and its own denominator."""
    shares = [credited_groups[first :: settings.mini_batches] for first in range(settings.mini_batches)]
    return [make_batch(share, settings, max_new_tokens, num_ranks) for share in shares]


def make_batch(
    credited_groups: Sequence[CreditedGroup], settings: UpdateSection, max_new_tokens: int, num_ranks: int = 1
) -> Batch:
    """What one pass of the optimiser needs of its credited_groups, those of all ranks.

    Completions without any advantage add nothing to the gradient and cost no forward pass, unless a KL or an entropy
    term pulls on them too. They count in the denominator all the same.
    """
    normalise = normalisation_of(settings)
    trees = [_tree(credited, normalise) for credited in credited_groups]
    lengths = [len(one.token_ids) for credited in credited_groups for one in credited.scored.group.completions]
    if not (settings.kl_weight and settings.kl_in == "loss") and not settings.entropy_weight:
        trees = [_with_signal(tree) for tree in trees]
    pieces = [piece for tree in trees if tree.branches for piece in split(tree, settings.tokens_per_micro_batch)]
    return Batch(
        micro_batches=tuple(balance(pieces, settings.tokens_per_micro_batch, num_ranks)),
        denominator=denominator(lengths, normalise, max_new_tokens),
    )


def denominator(lengths: Sequence[int], normalise: str, max_new_tokens: int) -> float:
    """What divides the summed loss, from the token counts of all completions, dead groups included.

    token: the number of completion tokens (DAPO, arXiv 2503.14476, equation 8); sequence: the number of
    completions (GRPO, arXiv 2402.03300, equation 3, with 1/length as each token's weight); sequence_sum: the same,
    with a weight of 1 (RLOO, arXiv 2402.14740); constant: completions times the longest length allowed (Dr. GRPO,
    arXiv 2503.20783, appendix).
    """
    if normalise == "token":
        return float(sum(lengths))
    if normalise == "constant":
        return float(len(lengths) * max_new_tokens)
    return float(len(lengths))


def _tree(credited: CreditedGroup, normalise: str) -> PromptTree:
    group = credited.scored.group
    branches = tuple(
        Branch(
            token_ids=tuple(np.asarray(completion.token_ids).tolist()),
            sampler_logps=tuple(np.asarray(completion.sampler_logps).tolist()),
            advantages=advantages,
            weight=1 / len(completion.token_ids) if normalise == "sequence" else 1.0,
        )
        for completion, advantages in zip(group.completions, credited.advantages, strict=True)
    )
    return PromptTree(group.prompt.token_ids, branches)


def _with_signal(tree: PromptTree) -> PromptTree:
    return PromptTree(tree.prompt_ids, tuple(branch for branch in tree.branches if any(branch.advantages)))


def split(tree: PromptTree, budget: int) -> Iterator[PromptTree]:
    """Cut a tree that is over the budget into several, each with the prompt and some of the branches."""
    room = budget - len(tree.prompt_ids)
    taken: list[Branch] = []
    used = 0
    for branch in tree.branches:
        if taken and used + len(branch.token_ids) > room:
            yield PromptTree(tree.prompt_ids, tuple(taken))
            taken, used = [], 0
        taken.append(branch)
        used += len(branch.token_ids)
    yield PromptTree(tree.prompt_ids, tuple(taken))


def cost(tree: PromptTree) -> float:
    """How much work a tree is, in tokens without attention."""
    return tree.num_tokens + tree.num_pairs / ATTENTION_PAIRS_PER_TOKEN


def balance(trees: Sequence[PromptTree], budget: int, num_ranks: int) -> list[tuple[PromptTree, ...]]:
    """As few micro-batches as there may be, of at most `budget` tokens, as many for each rank, alike in cost.

    The costliest first, each to the micro-batch that has least to do of those with room for it (Graham's LPT rule,
    which ends at most a third above the best). Where the budget leaves no room for one, there are more of them.
    """
    if not trees:
        return []
    num_tokens = sum(tree.num_tokens for tree in trees)
    num = num_ranks * math.ceil(num_tokens / (budget * num_ranks))
    while (filled := _fill(trees, budget, num)) is None:
        num += num_ranks
    return filled


def _fill(trees: Sequence[PromptTree], budget: int, num: int) -> list[tuple[PromptTree, ...]] | None:
    bins: list[list[PromptTree]] = [[] for _ in range(num)]
    costs, room = [0.0] * num, [budget] * num
    for tree in sorted(trees, key=cost, reverse=True):
        fitting = [index for index in range(num) if room[index] >= tree.num_tokens or not bins[index]]
        if not fitting:
            return None
        chosen = min(fitting, key=lambda index: costs[index])
        bins[chosen].append(tree)
        costs[chosen] += cost(tree)
        room[chosen] -= tree.num_tokens
    return [tuple(trees) for trees in bins]

"""Lessons to one batch: loss weights, the one denominator, and micro-batches by token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from grpo.config import UpdateSection
from grpo.types import Batch, Branch, Lesson, PromptTree


def make_batch(lessons: Sequence[Lesson], settings: UpdateSection, max_new_tokens: int) -> Batch:
    """What one update needs of this rank's lessons; the denominator is still this rank's share.

    Completions whose advantage is exactly zero add nothing to the gradient and cost no forward pass, unless a KL
    term pulls on them too. They count in the denominator all the same.
    """
    trees = [_tree(lesson, settings) for lesson in lessons]
    lengths = [len(one.token_ids) for lesson in lessons for one in lesson.scored.group.completions]
    if settings.kl_weight == 0:
        trees = [_with_signal(tree) for tree in trees]
    pieces = [piece for tree in trees if tree.branches for piece in _split(tree, settings.tokens_per_micro_batch)]
    return Batch(
        micro_batches=tuple(_pack(pieces, settings.tokens_per_micro_batch)),
        denominator=denominator(lengths, settings.normalise, max_new_tokens),
    )


def denominator(lengths: Sequence[int], normalise: str, max_new_tokens: int) -> float:
    """What divides the summed loss, from the token counts of all completions, dead groups included.

    token: the number of completion tokens (DAPO, arXiv 2503.14476, equation 8); sequence: the number of
    completions (GRPO, arXiv 2402.03300, equation 3, with 1/length as each token's weight); constant: completions
    times the longest length allowed (Dr. GRPO, arXiv 2503.20783, appendix).
    """
    if normalise == "token":
        return float(sum(lengths))
    if normalise == "sequence":
        return float(len(lengths))
    return float(len(lengths) * max_new_tokens)


def _tree(lesson: Lesson, settings: UpdateSection) -> PromptTree:
    group = lesson.scored.group
    branches = tuple(
        Branch(
            token_ids=completion.token_ids,
            sampler_logps=completion.sampler_logps,
            advantage=advantage,
            weight=1 / len(completion.token_ids) if settings.normalise == "sequence" else 1.0,
        )
        for completion, advantage in zip(group.completions, lesson.advantages, strict=True)
    )
    return PromptTree(group.prompt.token_ids, branches)


def _with_signal(tree: PromptTree) -> PromptTree:
    return PromptTree(tree.prompt_ids, tuple(branch for branch in tree.branches if branch.advantage != 0))


def _split(tree: PromptTree, budget: int) -> Iterator[PromptTree]:
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


def _pack(trees: Sequence[PromptTree], budget: int) -> Iterator[tuple[PromptTree, ...]]:
    """First fit, the largest first: micro-batches of at most `budget` tokens."""
    bins: list[list[PromptTree]] = []
    room: list[int] = []
    for tree in sorted(trees, key=lambda tree: -tree.num_tokens):
        fits = next((index for index, left in enumerate(room) if left >= tree.num_tokens), None)
        if fits is None:
            bins.append([])
            room.append(budget)
            fits = len(bins) - 1
        bins[fits].append(tree)
        room[fits] -= tree.num_tokens
    return (tuple(trees) for trees in bins)

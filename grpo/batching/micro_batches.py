"""Credited groups to a plan of micro-batches, and the plan to the trees that one rank computes.

The plan is made on every rank from what all ranks know of the groups, so that it needs no collective. Trees are made by
the ranks that hold the tokens, and handed to those that compute them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grpo.advantages.compute import token_advantages
from grpo.batching.balance import Piece, balance, make_piece
from grpo.objectives.table import Normalise
from grpo.parallel.world import World
from grpo.recipe.sections import UpdateSection, normalisation_of
from grpo.records import Batch, Branch, CreditedGroup, KlCosts, PromptTree, ScoredGroup


@dataclass(frozen=True)
class BatchPlan:
    """Which completions are computed in which micro-batch; of R ranks, rank r has every R-th from the r-th on."""

    micro_batches: tuple[tuple[Piece, ...], ...]
    denominator: float


Costs = Mapping[int, KlCosts]
"""By a group's position, what the KL in the reward took off each token."""


def make_batches(
    credited_groups: Sequence[CreditedGroup],
    own: Mapping[int, ScoredGroup],
    costs: Costs,
    settings: UpdateSection,
    max_new_tokens: int,
    world: World,
) -> list[Batch]:
    """What each pass of the optimiser learns from: of N `mini_batches` every N-th group, and its own denominator.

    `credited_groups` are those of all ranks; `own` and `costs` have this rank's groups by position.
    """
    plans = [
        plan_batch(credited_groups[first :: settings.mini_batches], settings, max_new_tokens, world.size)
        for first in range(settings.mini_batches)
    ]
    normalise = normalisation_of(settings)
    trees = {
        one.summary.position: whole_tree(own[one.summary.position], one, costs.get(one.summary.position), normalise)
        for one in credited_groups
        if one.summary.position in own
    }
    return hand_out(plans, trees, world)


def plan_batch(
    credited_groups: Sequence[CreditedGroup], settings: UpdateSection, max_new_tokens: int, num_ranks: int = 1
) -> BatchPlan:
    """What one pass of the optimiser computes, the same on all ranks.

    Completions without any advantage add nothing to the gradient and cost no forward pass, unless a KL or an entropy
    term pulls on them. They count in the denominator all the same, unless they are left out of both.
    """
    pulled = bool(settings.kl_weight and settings.kl_in == "loss") or settings.entropy_weight > 0
    pieces: list[Piece] = []
    lengths: list[int] = []
    for credited in credited_groups:
        learnt = [index for index in range(len(credited.advantages)) if index not in credited.left_out]
        lengths += [credited.summary.lengths[index] for index in learnt]
        computed = [index for index in learnt if pulled or credited.advantages[index] or credited.charge_scale]
        pieces += split(credited, computed, settings.tokens_per_micro_batch)
    return BatchPlan(
        micro_batches=tuple(tuple(bin) for bin in balance(pieces, settings.tokens_per_micro_batch, num_ranks)),
        denominator=denominator(lengths, normalisation_of(settings), max_new_tokens),
    )


def denominator(lengths: Sequence[int], normalise: Normalise, max_new_tokens: int) -> float:
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


def split(credited: CreditedGroup, completions: Sequence[int], budget: int) -> Iterator[Piece]:
    """Some completions of a group as pieces of at most `budget` tokens, each with the prompt."""
    summary = credited.summary
    taken: list[int] = []
    used = summary.prompt_tokens
    for index in completions:
        if taken and used + summary.lengths[index] > budget:
            yield _piece(credited, taken)
            taken, used = [], summary.prompt_tokens
        taken.append(index)
        used += summary.lengths[index]
    if taken:
        yield _piece(credited, taken)


def _piece(credited: CreditedGroup, completions: Sequence[int]) -> Piece:
    summary = credited.summary
    lengths = [summary.lengths[index] for index in completions]
    return make_piece(summary.position, completions, summary.prompt_tokens, lengths)


def whole_tree(scored: ScoredGroup, credited: CreditedGroup, costs: KlCosts | None, normalise: Normalise) -> PromptTree:
    """A group as the loss sees it, with all of its completions."""
    group = scored.group
    branches = tuple(
        Branch(
            token_ids=completion.token_ids,
            sampler_logps=completion.sampler_logps,
            advantages=advantages.astype(np.float32),
            weight=1 / len(completion.token_ids) if normalise == "sequence" else 1.0,
        )
        for completion, advantages in zip(group.completions, token_advantages(credited, costs), strict=True)
    )
    return PromptTree(group.prompt.token_ids, branches)


_Place = tuple[int, int, int]
"""The number of a plan, of one of its micro-batches, and of a tree in that."""


def hand_out(plans: Sequence[BatchPlan], trees: Mapping[int, PromptTree], world: World) -> list[Batch]:
    """Each plan's micro-batches of this rank, from the trees that all ranks hold; a collective where there are others.

    `trees` are this rank's by position.
    """
    parcels: list[dict[_Place, PromptTree]] = [{} for _ in range(world.size)]
    for number, plan in enumerate(plans):
        for index, pieces in enumerate(plan.micro_batches):
            for place, piece in enumerate(pieces):
                if (tree := trees.get(piece.position)) is not None:
                    parcels[index % world.size][number, index, place] = _cut(tree, piece)
    received: dict[_Place, PromptTree] = {}
    for parcel in world.exchange(parcels):
        received |= parcel
    return [
        Batch(
            micro_batches=tuple(
                tuple(received[number, index, place] for place in range(len(plan.micro_batches[index])))
                for index in world.stride(range(len(plan.micro_batches)))
            ),
            denominator=plan.denominator,
            has_signal=bool(plan.micro_batches),
        )
        for number, plan in enumerate(plans)
    ]


def _cut(tree: PromptTree, piece: Piece) -> PromptTree:
    return PromptTree(tree.prompt_ids, tuple(tree.branches[index] for index in piece.completions))

"""From scored groups to credited ones: every advantage of a step, computed once and in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from grpo.advantages.formulas import (
    batch_deviation,
    batch_std,
    charged_from,
    group_mean,
    group_std,
    leave_one_out,
    part_pulls,
    sum_pulls,
)
from grpo.objectives.table import Advantage
from grpo.records import CreditedGroup, KlCosts, ScoredGroup
from rewards.spec import RewardSpec

_OF_GROUPS = {"group_std": group_std, "group_mean": group_mean, "leave_one_out": leave_one_out}

Advantages = tuple[tuple[float, ...], ...]
"""Of a group: one for each token of each completion."""
Pulls = tuple[Mapping[str, float], ...]


def compute_advantages(
    scored: Sequence[ScoredGroup], costs: Sequence[KlCosts], rewards: Sequence[RewardSpec], advantage: Advantage
) -> list[CreditedGroup]:
    """What each group teaches, as `advantage` says; `scored` are the groups of all ranks, `costs` what a KL in
    the reward takes off theirs.

    Every rank works out the advantages of the whole step, from the same groups in the same order, so that they are the
    same to the last bit however many ranks there are.
    """
    weights = {spec.name: spec.weight for spec in rewards}
    if advantage == "gdpo":
        return _of_parts(scored, weights)
    if advantage == "batch":
        rows, pulls = _of_batch(scored, costs), _pulls_of_batch(scored, weights)
    else:
        pulls = [tuple(sum_pulls(group.parts, weights)) for group in scored]
        rows = (
            _of_batch_less_groups(scored, costs) if advantage == "group_batch" else _of_groups(scored, costs, advantage)
        )
    return [CreditedGroup(group, row, pulled) for group, row, pulled in zip(scored, rows, pulls, strict=True)]


def _of_groups(scored: Sequence[ScoredGroup], costs: Sequence[KlCosts], name: str) -> list[Advantages]:
    """Each group by itself: a completion's tokens share what its reward, less all that it cost, is worth."""
    rows = []
    for group, cost in zip(scored, costs, strict=True):
        charged = [reward - math.fsum(row) for reward, row in zip(group.rewards, cost, strict=True)]
        rows.append(_spread(group, _OF_GROUPS[name](charged)))
    return rows


def _of_parts(scored: Sequence[ScoredGroup], weights: Mapping[str, float]) -> list[CreditedGroup]:
    """GDPO: each part is normalised in its group, and their weighted sums over all groups of the step."""
    pulls = [part_pulls(group.parts, weights) for group in scored]
    sums = [[math.fsum(pull.values()) for pull in group] for group in pulls]
    deviation = batch_deviation([value for group in sums for value in group])
    return [
        CreditedGroup(group, _spread(group, [value / deviation for value in row]), tuple(pulled))
        for group, row, pulled in zip(scored, sums, pulls, strict=True)
    ]


def _of_batch(scored: Sequence[ScoredGroup], costs: Sequence[KlCosts]) -> list[Advantages]:
    """REINFORCE++: the tokens' returns, normalised over all tokens of the step."""
    return _normalised([_returns(group, group.rewards, cost) for group, cost in zip(scored, costs, strict=True)])


def _of_batch_less_groups(scored: Sequence[ScoredGroup], costs: Sequence[KlCosts]) -> list[Advantages]:
    """REINFORCE++ with a baseline: as above, after the mean of its group was taken off each reward.

    The KL is charged after that, as in OpenRLHF. Where we differ from it: a group in which nothing is left, since all
    rewards are equal and nothing is charged, gets exact zeros (there, what the mean over all tokens is off 0). Its
    tokens count in mean and deviation all the same.
    """
    returns = [_returns(group, group_mean(group.rewards), cost) for group, cost in zip(scored, costs, strict=True)]
    return [
        rows if any(any(row) for row in left) else left
        for left, rows in zip(returns, _normalised(returns), strict=True)
    ]


def _returns(group: ScoredGroup, rewards: Sequence[float], costs: KlCosts) -> Advantages:
    """What each token's completion earns in the end, less what the KL charges from that token on."""
    return tuple(
        tuple(reward - later for later in charged_from(cost, len(one.token_ids)))
        for reward, one, cost in zip(rewards, group.group.completions, costs, strict=True)
    )


def _normalised(returns: Sequence[Advantages]) -> list[Advantages]:
    values = iter(batch_std([value for rows in returns for row in rows for value in row]))
    return [tuple(tuple(next(values) for _ in row) for row in rows) for rows in returns]


def _pulls_of_batch(scored: Sequence[ScoredGroup], weights: Mapping[str, float]) -> list[Pulls]:
    """Where no group is compared with itself, the parts pull away from their means over the whole step."""
    names = scored[0].parts if scored else ()
    pulls = iter(
        sum_pulls({name: [value for group in scored for value in group.parts[name]] for name in names}, weights)
    )
    return [tuple(next(pulls) for _ in group.scores) for group in scored]


def _spread(group: ScoredGroup, advantages: Sequence[float]) -> Advantages:
    """The same advantage for every token of a completion."""
    return tuple(
        (advantage,) * len(one.token_ids) for one, advantage in zip(group.group.completions, advantages, strict=True)
    )

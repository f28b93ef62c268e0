"""From scored groups to credited ones: every advantage of a step, computed once and in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from grpo.advantages.formulas import (
    Moments,
    batch_deviation,
    charged_from,
    group_mean,
    group_std,
    is_dead,
    leave_one_out,
    part_pulls,
    pooled_scale,
    sum_pulls,
)
from grpo.objectives.table import Advantage
from grpo.records import CreditedGroup, Floats, GroupSummary, KlCharge, KlCosts
from rewards.spec import RewardSpec

_OF_GROUPS = {"group_std": group_std, "group_mean": group_mean, "leave_one_out": leave_one_out}

Charges = Mapping[int, Sequence[KlCharge]]
"""By a group's position, what the KL in the reward charges each of its completions; groups without an entry are
charged nothing."""
Pulls = tuple[Mapping[str, float], ...]
_NOTHING = KlCharge()


def compute_advantages(
    groups: Sequence[GroupSummary], charges: Charges, rewards: Sequence[RewardSpec], advantage: Advantage
) -> list[CreditedGroup]:
    """What each group teaches, as `advantage` says; `groups` are those of all ranks.

    Every rank works out the advantages of the whole step, from the same groups in the same order, so that they are the
    same to the last bit however many ranks there are.
    """
    weights = {spec.name: spec.weight for spec in rewards}
    if advantage == "gdpo":
        return _of_parts(groups, weights)
    if advantage == "batch":
        return _of_step(groups, charges, [group.rewards for group in groups], _pulls_of_step(groups, weights))
    pulls = [tuple(sum_pulls(group.parts, weights)) for group in groups]
    if advantage == "group_batch":
        return _of_step_less_groups(groups, charges, pulls)
    return _of_groups(groups, charges, advantage, pulls)


def leave_out_truncated(credited: CreditedGroup) -> CreditedGroup:
    """The same group, in which completions that the length limit cut off teach nothing.

    DAPO (arXiv 2503.14476, section 3.4): overlong filtering takes truncated ones out of the loss, since a sound chain
    of thought is no mistake for being long. Their rewards stay in what the group is compared with.
    """
    left_out = frozenset(n for n, finish in enumerate(credited.summary.finishes) if finish == "length")
    kept = tuple(0.0 if n in left_out else value for n, value in enumerate(credited.advantages))
    return replace(credited, advantages=kept, left_out=left_out)


def takes_charge(group: GroupSummary, advantage: Advantage) -> bool:
    """Whether a KL in the reward is charged on a group at all.

    One whose rewards are all equal has advantages of exactly 0 wherever completions are compared inside their group.
    Charged, it would be taught by its KL alone, which elsewhere is small beside what the rewards say.
    """
    return advantage == "batch" or not is_dead(group.rewards)


def charge_of(costs: Floats) -> KlCharge:
    """What the KL charges a completion, from the cost of each of its tokens, shape (T,)."""
    charged = charged_from(costs)
    mean = float(charged.mean())
    squares = float(np.square(charged - mean).sum())
    return KlCharge(float(charged[0]), mean, squares, float(charged.min()), float(charged.max()))


def token_advantages(credited: CreditedGroup, costs: KlCosts | None = None) -> list[NDArray[np.float64]]:
    """An advantage for each token of each completion, shapes (T_i,). `costs` are those that were charged on the group.

    A_t = A_1 + charge_scale (C_1 - C_t), with C_t what token t and all that follow it cost.
    """
    rows = [np.full(length, value) for length, value in zip(credited.summary.lengths, credited.advantages, strict=True)]
    if not credited.charge_scale or costs is None:
        return rows
    charged = [charged_from(one) for one in costs]
    return [row + credited.charge_scale * (one[0] - one) for row, one in zip(rows, charged, strict=True)]


def _of_groups(
    groups: Sequence[GroupSummary], charges: Charges, advantage: str, pulls: Sequence[Pulls]
) -> list[CreditedGroup]:
    """Each group by itself: what its rewards are worth, less all that each completion cost.

    The KL is charged after the rewards are normalised, so that its size is its own and not that of its noise over its
    deviation in the group.
    """
    rows = []
    for group in groups:
        worth = _OF_GROUPS[advantage](group.rewards)
        rows.append(tuple(value - one.total for value, one in zip(worth, _charged(group, charges), strict=True)))
    return [CreditedGroup(*each) for each in zip(groups, rows, pulls, strict=True)]


def _of_parts(groups: Sequence[GroupSummary], weights: Mapping[str, float]) -> list[CreditedGroup]:
    """GDPO: each part is normalised in its group, and their weighted sums over all groups of the step."""
    pulls = [part_pulls(group.parts, weights) for group in groups]
    sums = [[math.fsum(pull.values()) for pull in group] for group in pulls]
    deviation = batch_deviation([value for group in sums for value in group])
    return [
        CreditedGroup(group, tuple([value / deviation for value in row]), tuple(pulled))
        for group, row, pulled in zip(groups, sums, pulls, strict=True)
    ]


def _of_step_less_groups(
    groups: Sequence[GroupSummary], charges: Charges, pulls: Sequence[Pulls]
) -> list[CreditedGroup]:
    """REINFORCE++ with a baseline: as over the step, after the mean of its group was taken off each reward.

    The KL is charged after that, as in OpenRLHF. Where we differ from it: a group whose rewards are all equal gets
    exact zeros (there, what the mean over all tokens is off 0). Its tokens count in mean and deviation all the same.
    """
    credited = _of_step(groups, charges, [group_mean(group.rewards) for group in groups], pulls)
    return [
        CreditedGroup(one.summary, (0.0,) * len(one.advantages), one.pulls) if is_dead(one.summary.rewards) else one
        for one in credited
    ]


def _of_step(
    groups: Sequence[GroupSummary], charges: Charges, rewards: Sequence[Sequence[float]], pulls: Sequence[Pulls]
) -> list[CreditedGroup]:
    """REINFORCE++: the tokens' returns, normalised over all tokens of the step.

    A token's return is its completion's reward less what the KL charges from that token on.
    """
    charged = [_charged(group, charges) for group in groups]
    scale = pooled_scale(
        [
            Moments(length, reward - one.mean, one.squares, reward - one.most, reward - one.least)
            for group, row, charge in zip(groups, rewards, charged, strict=True)
            for length, reward, one in zip(group.lengths, row, charge, strict=True)
        ]
    )
    if scale is None:
        return [
            CreditedGroup(group, (0.0,) * len(group.scores), pull) for group, pull in zip(groups, pulls, strict=True)
        ]
    mean, deviation = scale
    return [
        CreditedGroup(
            group,
            tuple((reward - one.total - mean) / deviation for reward, one in zip(row, charge, strict=True)),
            pull,
            charge_scale=1 / deviation if group.position in charges else 0.0,
        )
        for group, row, charge, pull in zip(groups, rewards, charged, pulls, strict=True)
    ]


def _charged(group: GroupSummary, charges: Charges) -> Sequence[KlCharge]:
    return charges.get(group.position) or [_NOTHING] * len(group.scores)


def _pulls_of_step(groups: Sequence[GroupSummary], weights: Mapping[str, float]) -> list[Pulls]:
    """Where no group is compared with itself, the parts pull away from their means over the whole step."""
    names = groups[0].parts if groups else ()
    pulls = iter(
        sum_pulls({name: [value for group in groups for value in group.parts[name]] for name in names}, weights)
    )
    return [tuple(next(pulls) for _ in group.scores) for group in groups]

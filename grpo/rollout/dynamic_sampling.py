"""A step's batch out of what was drawn for it: DAPO's dynamic sampling, as pure functions on groups' summaries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from grpo.advantages.formulas import is_dead, part_pulls
from grpo.objectives.table import Advantage
from grpo.recipe.sections import RolloutSection
from grpo.records import GroupSummary, Selection
from rewards.spec import RewardSpec

HasSignal = Callable[[GroupSummary], bool]


Select = Callable[[Sequence[GroupSummary]], Selection]
"""From everything drawn so far, in the problems' order, to the batch."""


def choose_selection(rollout: RolloutSection, advantage: Advantage, rewards: Sequence[RewardSpec]) -> Select:
    """What a recipe asks for: with a single round all that it drew, dead groups included."""
    if rollout.max_rounds == 1:
        return select_all
    has_signal: HasSignal = rewards_differ
    if advantage == "gdpo":
        has_signal = partial(parts_differ, weights={spec.name: spec.weight for spec in rewards})
    return partial(select_living, num_groups=rollout.prompts_per_step, has_signal=has_signal)


def select_all(groups: Sequence[GroupSummary]) -> Selection:
    """Everything."""
    return Selection(tuple(groups))


def select_living(groups: Sequence[GroupSummary], num_groups: int, has_signal: HasSignal) -> Selection:
    """The first `num_groups` groups that have a signal: fewer, where there are no more.

    DAPO (arXiv 2503.14476, section 3.2 and its algorithm 1): groups whose accuracy is 0 or 1 are filtered out, and
    prompts are drawn until the batch is full. Where we differ: a group is dead when its rewards are all equal, so
    that the rule holds for any reward; there is a bound; and of the last round's groups those that come first in
    the problems' order are taken, so that the batch depends on nothing else.
    """
    living = [group for group in groups if has_signal(group)]
    dead = [group for group in groups if not has_signal(group)]
    return Selection(tuple(living[:num_groups]), tuple(living[num_groups:]), tuple(dead))


def rewards_differ(group: GroupSummary) -> bool:
    """Whether two rewards of a group are different, tested exactly. A KL that is taken off them is not asked."""
    return not is_dead(group.rewards)


def parts_differ(group: GroupSummary, weights: Mapping[str, float]) -> bool:
    """The same for GDPO, which learns from each part: whether its weighted sum of normalised parts is anywhere not 0.

    Where parts outweigh each other in the reward, its sum may be the same for all completions and the group alive.
    """
    return any(math.fsum(pull.values()) for pull in part_pulls(group.parts, weights))

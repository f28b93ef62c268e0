"""From scored groups to lessons: every advantage of a step, computed once and in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from grpo.advantages import batch_deviation, group_advantages, part_pulls, sum_pulls
from grpo.config import UpdateSection
from grpo.types import Lesson, ScoredGroup
from rewards.spec import RewardSpec


def draw_lessons(scored: Sequence[ScoredGroup], rewards: Sequence[RewardSpec], settings: UpdateSection) -> list[Lesson]:
    """What each group teaches, as `update.advantage_of` says; `scored` are the groups of all ranks.

    Every rank works out all lessons of a step, from the same groups in the same order, and then takes its own: so
    that the advantages are the same to the last bit however many ranks there are.
    """
    weights = {spec.name: spec.weight for spec in rewards}
    if settings.advantage_of == "parts":
        return _of_parts(scored, weights)
    return [
        Lesson(
            group,
            tuple(group_advantages(group.rewards, settings.advantage_scale)),
            tuple(sum_pulls(group.parts, weights)),
        )
        for group in scored
    ]


def _of_parts(scored: Sequence[ScoredGroup], weights: Mapping[str, float]) -> list[Lesson]:
    """GDPO: each part is normalised in its group, and their weighted sums over all groups of the step."""
    pulls = [part_pulls(group.parts, weights) for group in scored]
    sums = [[math.fsum(pull.values()) for pull in group] for group in pulls]
    deviation = batch_deviation([value for group in sums for value in group])
    return [
        Lesson(group, tuple(value / deviation for value in row), tuple(pulled))
        for group, row, pulled in zip(scored, sums, pulls, strict=True)
    ]

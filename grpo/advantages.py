"""Group-normalised advantages: pure functions from a group's rewards to one number a completion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Scale = Literal["std", "none"]

STD_FLOOR = 1e-4
"""Added to the standard deviation, in units of reward."""


def group_advantages(rewards: Sequence[float], scale: Scale = "std") -> list[float]:
    """How much better each completion is than its group, shape (G,) to (G,).

    ``std`` (DeepSeekMath, arXiv 2402.03300, section 4.1.2): A_i = (r_i - mean(r)) / (std(r) + STD_FLOOR).
    ``none`` (Dr. GRPO, arXiv 2503.20783, section 3.2): A_i = r_i - mean(r), since the deviation gives problems
    that are almost always or almost never solved too much weight.

    The deviation is the sample's (G - 1 in its denominator); the paper does not say which. The mean is taken
    with exact summation, and a group whose rewards are all equal, tested exactly, gets exact zeros. A reward
    that is not finite is an error, never a silent zero.
    """
    if not all(math.isfinite(reward) for reward in rewards):
        raise ValueError(f"rewards={list(rewards)}: a reward is not finite; mend the reward that returned it")
    if is_dead(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    centred = [reward - mean for reward in rewards]
    if scale == "none":
        return centred
    variance = math.fsum(value * value for value in centred) / (len(rewards) - 1)
    return [value / (math.sqrt(variance) + STD_FLOOR) for value in centred]


def is_dead(rewards: Sequence[float]) -> bool:
    """True when all rewards of a group are exactly equal, so that it has nothing to teach."""
    return all(reward == rewards[0] for reward in rewards)

"""Advantages: pure functions from the rewards of a group, or of a whole step, to how much better each completion is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Part = Sequence[float | None]
"""One part of the reward for each completion of a group, shape (G,); None where it had no opinion."""

STD_FLOOR = 1e-4
"""Added to the standard deviation, in units of what is divided by it."""


def group_std(rewards: Sequence[float]) -> list[float]:
    """How much better each completion is than its group, in deviations of the group, shape (G,) to (G,).

    DeepSeekMath (arXiv 2402.03300, section 4.1.2): A_i = (r_i - mean(r)) / (std(r) + STD_FLOOR).

    The deviation is the sample's (G - 1 in its denominator); the paper does not say which. The mean is taken
    with exact summation, and a group whose rewards are all equal, tested exactly, gets exact zeros. A reward
    that is not finite is an error, never a silent zero.
    """
    return _standardised(rewards)


def group_mean(rewards: Sequence[float]) -> list[float]:
    """How much better each completion is than its group, shape (G,) to (G,).

    Dr. GRPO (arXiv 2503.20783, section 3.2): A_i = r_i - mean(r), since the deviation gives problems that are almost
    always or almost never solved too much weight. Equal rewards give exact zeros.
    """
    return _centred(rewards)


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """How much better each completion is than the mean of the others, shape (G,) to (G,).

    RLOO (arXiv 2402.14740): A_i = r_i - sum_{j != i}(r_j) / (G - 1), which is (r_i - mean(r)) G / (G - 1). Equal
    rewards give exact zeros.
    """
    return [value * len(rewards) / (len(rewards) - 1) for value in _centred(rewards)]


@dataclass(frozen=True)
class Moments:
    """What is to be known of some numbers to normalise them together with others that are not at hand."""

    count: int
    mean: float
    squares: float
    """Sum of their squared distances from their mean."""
    least: float
    most: float


def pooled_scale(parts: Sequence[Moments]) -> tuple[float, float] | None:
    """Mean and deviation of all numbers of several parts together; None where all of them are equal, tested exactly.

    REINFORCE++ (arXiv 2501.03262): A_t = (R_t - mean(R)) / (std(R) + STD_FLOOR), with R_t the return from token t on.
    Mean and deviation are over all N completion tokens of the step, those of all ranks, so that long completions
    count for more: the paper says "the batch", and OpenRLHF, its authors' code, takes the tokens. A part is a
    completion, so that no rank needs to know another one's tokens; parts are pooled as by Chan, Golub and LeVeque
    (1983): sum(squares) + sum(n_i (mean_i - mean)^2).

    Where we differ: the deviation is the sample's (OpenRLHF's the population's, its variance at least 1e-8), with
    STD_FLOOR added. A number that is not finite is an error.
    """
    if not all(math.isfinite(part.mean) and math.isfinite(part.squares) for part in parts):
        raise ValueError("returns: one is not finite; mend the reward that returned it")
    if not parts or min(part.least for part in parts) == max(part.most for part in parts):
        return None
    count = sum(part.count for part in parts)
    mean = math.fsum(part.count * part.mean for part in parts) / count
    squares = math.fsum(part.squares + part.count * (part.mean - mean) ** 2 for part in parts)
    return mean, math.sqrt(squares / (count - 1)) + STD_FLOOR


def charged_from(costs: NDArray[np.float32]) -> NDArray[np.float64]:
    """What each token and all that follow it cost, shape (T,) to (T,).

    REINFORCE++'s sum over i = t..T of beta KL(i): a token answers for itself and for what it led to.
    """
    return np.cumsum(costs[::-1], dtype=np.float64)[::-1]


def part_advantages(part: Part) -> list[float]:
    """How much better each completion is than its group in one part of the reward, shape (G,) to (G,).

    GDPO (arXiv 2601.05242), its first step: A_ki = (p_ki - mean(p_k)) / (std(p_k) + STD_FLOOR).

    The paper knows no missing opinions: here a None is left out of mean and deviation, and gets 0. So does every
    completion where all opinions are equal, tested exactly, or where there is only one.
    """
    normalised = iter(group_std([value for value in part if value is not None]))
    return [0.0 if value is None else next(normalised) for value in part]


def batch_deviation(sums: Sequence[float]) -> float:
    """What divides every sum of normalised parts of a step, shape (N,): sqrt(sum(S_i^2) / (N - 1)) + STD_FLOOR.

    GDPO, its last step: A_i = (S_i - mean(S)) / (std(S) + STD_FLOOR) with S_i = sum_k(w_k A_ki), where mean and
    deviation are those of all N completions of the step: of all ranks, dead groups included. It keeps the size of
    an update from growing with the number of parts.

    Where we differ: the mean is not subtracted. It is 0 by construction, since the opinions on a part are centred
    in their group; what a computer finds in its place is rounding, and would give dead groups an advantage.
    """
    return _deviation(sums)


def sum_pulls(parts: Mapping[str, Part], weights: Mapping[str, float]) -> list[dict[str, float]]:
    """What each part adds to a reward's distance from its group's mean: w_k (p_ki - mean(p_k)), for each of G.

    These add up to r_i - mean(r), so that the advantage of a sum is linear in them. A part that is None adds nothing
    to the reward, and counts as 0 here. A part whose values are all equal pulls with exactly 0.
    """
    columns = {
        name: _centred([weights[name] * value if value is not None else 0.0 for value in part])
        for name, part in parts.items()
    }
    return _rows(columns)


def part_pulls(parts: Mapping[str, Part], weights: Mapping[str, float]) -> list[dict[str, float]]:
    """What each part adds to a sum of normalised parts: w_k A_ki, for each of G (see `part_advantages`)."""
    columns = {name: [weights[name] * value for value in part_advantages(part)] for name, part in parts.items()}
    return _rows(columns)


def pull_shares(advantages: Sequence[float], pulls: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Which part drives the model: its share of all advantages of a step, shapes (N,) and (N, parts).

    share_k = sum_i(|A_i| |c_ki| / sum_j(|c_ji|)) / sum_i(|A_i|), with c_ki the pull of part k on completion i.

    |A_i| is how hard completion i moves the model, up or down, and it is shared out among the parts as hard as each
    pulls on it. The shares are at least 0 and add up to 1. Where two parts pull against each other, both get what
    they pull with, so a share says how much of a say a part has and not which way it votes. The weight |A_i| keeps
    groups in which the parts cancel out of it: they teach nothing, whatever the size of the pulls. Without
    any advantage nothing is driven, and the result is empty.
    """
    driven = [
        (abs(advantage), pull, math.fsum(abs(value) for value in pull.values()))
        for advantage, pull in zip(advantages, pulls, strict=True)
        if advantage and any(pull.values())
    ]
    total = math.fsum(size for size, _, _ in driven)
    names = pulls[0] if driven else ()
    return {name: math.fsum(size * abs(pull[name]) / whole for size, pull, whole in driven) / total for name in names}


def is_dead(rewards: Sequence[float]) -> bool:
    """True when all rewards of a group are exactly equal, so that it has nothing to teach."""
    return all(reward == rewards[0] for reward in rewards)


def _centred(rewards: Sequence[float]) -> list[float]:
    if not all(math.isfinite(reward) for reward in rewards):
        raise ValueError(f"rewards={list(rewards)}: a reward is not finite; mend the reward that returned it")
    if is_dead(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]


def _standardised(values: Sequence[float]) -> list[float]:
    """Distances from the mean in standard deviations; all 0 where all values are equal."""
    centred = _centred(values)
    if not any(centred):
        return centred
    deviation = _deviation(centred)
    return [value / deviation for value in centred]


def _deviation(centred: Sequence[float]) -> float:
    """The sample's standard deviation of values whose mean is 0, with the floor added."""
    variance = math.fsum(value * value for value in centred) / (len(centred) - 1)
    return math.sqrt(variance) + STD_FLOOR


def _rows(columns: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

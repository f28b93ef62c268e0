"""Rewards for meeting a length that the prompt asks for: LCPO of "L1" (arXiv 2503.04697). Lengths are in tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rewards.parts.checked import CheckedResponse
from rewards.parts.options import L1ExactOptions, L1MaxOptions, L1Options
from rewards.records import ScoreRequest


def l1_exact_reward(request: ScoreRequest, checked: Sequence[CheckedResponse], options: L1ExactOptions) -> list[float]:
    """LCPO-Exact (arXiv 2503.04697, equation 1): ``I(right) - alpha · |n_target - n|``, alpha = 0.0003.

    n is the completion's number of tokens. A wrong answer pays for its distance as well, and nothing bounds that
    from below. Putting the target into the prompt is the prompt template's business.

    Where we differ: the authors' code divides by 3000 tokens; we take the paper's 0.0003.
    """
    target = target_of(request, options)
    return [float(one.is_right) - options.alpha * abs(target - one.num_tokens) for one in checked]


def l1_max_reward(request: ScoreRequest, checked: Sequence[CheckedResponse], options: L1MaxOptions) -> list[float]:
    """LCPO-Max (arXiv 2503.04697, equation 2): ``I(right) · clip(alpha · (n_target - n) + δ, 0, 1)``, δ = 0.5.

    A right answer of exactly the target's length gets δ; shorter ones more, up to 1, longer ones less, down to 0.
    A wrong answer gets 0.

    Where we differ: the authors' code has a slope of 1/1000 a token; we take the paper's alpha = 0.0003.
    """
    target = target_of(request, options)
    budgets = [options.alpha * (target - one.num_tokens) + options.delta for one in checked]
    return [min(1.0, max(0.0, budget)) * one.is_right for budget, one in zip(budgets, checked, strict=True)]


def target_of(request: ScoreRequest, options: L1Options) -> float:
    """The length asked for, in tokens. Raises ValueError when the problem's row does not hold a number from 0 on."""
    if options.target_tokens is not None:
        return options.target_tokens
    column = str(options.target_column)
    if column not in request.columns:
        raise ValueError(
            f"options.target_column={column!r}: problem {request.id!r} has no such column, only "
            f"{sorted(request.columns)}; name the one that holds the target length"
        )
    target = request.columns[column]
    is_number = isinstance(target, int | float) and not isinstance(target, bool)
    if not is_number or not math.isfinite(target) or target < 0:
        raise ValueError(
            f"options.target_column={column!r}: problem {request.id!r} has {target!r:.80} there; "
            "give a number of tokens"
        )
    return float(target)

"""Rewards on the number of tokens of a completion."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.options import LengthOptions, OverlongOptions
from rewards.types import Outcome


def length_reward(
    num_tokens: Sequence[int], outcomes: Sequence[Outcome], step: int, options: LengthOptions
) -> list[float]:
    """Kimi k1.5's length reward within one group (arXiv 2501.12599, section 2.3.3).

    ``λ_i = 0.5 - (len_i - min_len) / (max_len - min_len)``, lengths in tokens, over the completions of one
    problem. A right answer gets λ_i, any other min(0, λ_i); all get 0 when all lengths are equal. The paper
    switches the reward on after a warm-up; here it is 0 before step ``warmup_steps``.
    """
    shortest, longest = min(num_tokens, default=0), max(num_tokens, default=0)
    if shortest == longest or step < options.warmup_steps:
        return [0.0] * len(num_tokens)
    lambdas = [0.5 - (length - shortest) / (longest - shortest) for length in num_tokens]
    return [
        value if outcome is Outcome.CORRECT else min(0.0, value)
        for value, outcome in zip(lambdas, outcomes, strict=True)
    ]


def overlong_reward(num_tokens: Sequence[int], options: OverlongOptions) -> list[float]:
    """DAPO's soft overlong punishment (arXiv 2503.14476, equation 13).

    0 up to ``L_max - L_cache`` tokens, then ``((L_max - L_cache) - len) / L_cache``, and -1 beyond L_max,
    where L_max is `max_tokens` and L_cache `cache_tokens`.
    """
    start = options.max_tokens - options.cache_tokens
    return [-min(1.0, max(0.0, (length - start) / options.cache_tokens)) + 0.0 for length in num_tokens]

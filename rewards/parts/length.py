"""Rewards on the number of tokens of a completion. All lengths are in tokens of the whole completion."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rewards.parts.checked import CheckedResponse
from rewards.parts.options import CosineOptions, LengthOptions, OverlongOptions
from rewards.records import ScoreRequest


def length_reward(request: ScoreRequest, checked: Sequence[CheckedResponse], options: LengthOptions) -> list[float]:
    """Kimi k1.5's length reward within one group (arXiv 2501.12599, section 2.3.3).

    ``λ_i = 0.5 - (len_i - min_len) / (max_len - min_len)``, lengths in tokens, over all completions of one
    problem, right or wrong. A right answer gets λ_i, any other min(0, λ_i); all get 0 when all lengths are equal.
    The paper switches the reward on after a warm-up; here it is 0 before step ``warmup_steps``.

    Where we differ: open-r1 measures characters; here, as in the paper, it is tokens.
    """
    lengths = [one.num_tokens for one in checked]
    shortest, longest = min(lengths, default=0), max(lengths, default=0)
    if shortest == longest or request.step < options.warmup_steps:
        return [0.0] * len(lengths)
    lambdas = [0.5 - (length - shortest) / (longest - shortest) for length in lengths]
    return [value if one.is_right else min(0.0, value) for value, one in zip(lambdas, checked, strict=True)]


def cosine_reward(request: ScoreRequest, checked: Sequence[CheckedResponse], options: CosineOptions) -> list[float]:
    """The cosine reward of "Demystifying Long Chain-of-Thought Reasoning" (arXiv 2502.03373, equation 1, section 4.2).

    ``r = r_max + (r_0 - r_max) / 2 · (1 + cos(π · n / max_tokens))`` with n the completion's tokens: it runs from r_0
    at no tokens to r_max at `max_tokens`, with one pair for right answers (`r_correct_0` = 2, `r_correct_max` = 1: the
    shorter the better) and one for all others (`r_wrong_0` = -10, `r_wrong_max` = 0: the longer a failed attempt
    the better). A completion that reaches `max_tokens`, or was cut off before by another limit, gets `exceed` (-10)
    whether right or wrong. The defaults are the paper's.

    Where we differ: the paper prints CosFn(t, T, η_min, η_max) and calls it with (r_0, r_L), which read literally
    would pay r_L at no tokens; we follow its table and its code, where r_0 is the value at no tokens. Its code
    treats the last 16 tokens before the limit as exceeding, we only the limit itself. TRL and open-r1 know no
    `exceed`, and default to 1.0, 0.5, -1.0 and -0.5; TRL clamps the length at the maximum, which is ``exceed: null``
    here, while open-r1 measures characters and lets the cosine rise again beyond it.
    """
    return [_cosine(one, options) for one in checked]


def _cosine(one: CheckedResponse, options: CosineOptions) -> float:
    if options.exceed is not None and (one.response.truncated or one.num_tokens >= options.max_tokens):
        return options.exceed
    start, end = (
        (options.r_correct_0, options.r_correct_max) if one.is_right else (options.r_wrong_0, options.r_wrong_max)
    )
    progress = min(1.0, one.num_tokens / options.max_tokens)
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))


def overlong_reward(request: ScoreRequest, options: OverlongOptions) -> list[float]:
    """DAPO's soft overlong punishment (arXiv 2503.14476, equation 13), whatever the answer.

    0 up to ``L_max - L_cache`` tokens, then ``((L_max - L_cache) - len) / L_cache``, and -1 beyond L_max,
    where L_max is `max_tokens` and L_cache `cache_tokens`.

    Where we differ: verl goes on falling below -1 beyond L_max; the paper, TRL and we stop there.
    """
    start = options.max_tokens - options.cache_tokens
    ramps = [(response.num_tokens - start) / options.cache_tokens for response in request.responses]
    return [-min(1.0, max(0.0, ramp)) + 0.0 for ramp in ramps]

"""Estimates from k judged completions a problem: accuracy with its interval, pass@k, maj@k."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def mean_accuracy(correct: Sequence[Sequence[bool]]) -> Interval:
    """avg@k over problems, with Wilson's score interval (Wilson 1927) on the number of problems.

    Problems, not completions, are the independent draws. With k > 1 a problem's mean varies less than a single
    verdict would, so the interval is then wider than it need be, never narrower.
    """
    num_problems = len(correct)
    value = math.fsum(sum(row) / len(row) for row in correct) / num_problems
    return wilson(value, num_problems)


def wilson(share: float, num: int) -> Interval:
    """Wilson's 95 % score interval of a share of `num` draws."""
    spread = Z95**2 / num
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / num + spread / (4 * num))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def pass_at_k(num: int, num_correct: int, k: int) -> float:
    """Chance that at least one of k completions is right, unbiased from `num` of which `num_correct` are.

    1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374, equation 1).
    """
    return 1 - math.comb(num - num_correct, k) / math.comb(num, k)


def majority_correct(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Whether the most frequent answer is right; where several are equally frequent, the share that is.

    Completions without an answer do not vote. Answers vote together when they are the same string.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    verdicts = dict(zip(answers, correct, strict=True))
    leaders = [answer for answer, count in votes.items() if count == most]
    return sum(verdicts[answer] for answer in leaders) / len(leaders)

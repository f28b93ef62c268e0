"""Estimates from k judged completions a problem: accuracy with its interval, pass@k, maj@k, and paired change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054
_NUM_RESAMPLES = 10_000
_SIGNIFICANT = 0.05


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


@dataclass(frozen=True)
class PairedChange:
    """What two evaluations of the same problems say of each other.

    `gained` and `lost` are the problems whose share of right completions rose and fell; `num_right` and `num_wrong`
    count those with nothing but right and nothing but wrong completions both times, and `num_problems` all that both
    evaluations hold. `difference` is the change of the accuracy on these, from -1 to 1. `p_value` is None where a
    problem has several completions.
    """

    num_problems: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    num_right: int
    num_wrong: int
    difference: Interval
    p_value: float | None

    @property
    def has_moved(self) -> bool:
        """Whether any problem was gained or lost. Where none was, every resample is 0 and the interval says nothing."""
        return bool(self.gained or self.lost)

    @property
    def is_significant(self) -> bool:
        """Whether chance is refused as the explanation, at 5 %: by the test where there is one, else by the interval.

        With few changed problems the bootstrap's interval is too narrow, which the exact test is not.
        """
        if self.p_value is not None:
            return self.p_value < _SIGNIFICANT
        return self.difference.low > 0 or self.difference.high < 0


def paired_change(before: Mapping[str, Sequence[bool]], after: Mapping[str, Sequence[bool]]) -> PairedChange | None:
    """Compare the verdicts on each problem, by its id, before and after; None where no problem is in both."""
    ids = [name for name in before if name in after]
    if not ids:
        return None
    changes = [sum(after[name]) / len(after[name]) - sum(before[name]) / len(before[name]) for name in ids]
    gained = tuple(name for name, change in zip(ids, changes, strict=True) if change > 0)
    lost = tuple(name for name, change in zip(ids, changes, strict=True) if change < 0)
    num_right = sum(all(before[name]) and all(after[name]) for name in ids)
    num_wrong = sum(not any(before[name]) and not any(after[name]) for name in ids)
    is_single = all(len(before[name]) == len(after[name]) == 1 for name in ids)
    p_value = mcnemar(len(gained), len(lost)) if is_single else None
    return PairedChange(len(ids), gained, lost, num_right, num_wrong, mean_change(changes), p_value)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test: how likely chance alone makes a split at least so uneven.

    Problems that were right or wrong both times say nothing. If the two policies are equally good, each of the others
    is gained or lost with probability 1/2, so that the smaller count is binomial; twice the tail of the smaller side,
    1 at most (McNemar 1947; exact form: Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91).
    """
    num = gained + lost
    tail = sum(math.comb(num, count) for count in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << num))


def mean_change(changes: Sequence[float]) -> Interval:
    """The mean change of a problem with the percentile bootstrap's 95 % interval over problems (Efron 1979).

    A resample's mean depends only on how often each different change was drawn, so that counts are drawn instead of
    problems: the same distribution, in memory that does not grow with their number. The seed is fixed.
    """
    values, counts = np.unique(np.asarray(changes, dtype=np.float64), return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(changes), counts / len(changes), size=_NUM_RESAMPLES)
    low, high = np.quantile(drawn @ values / len(changes), [0.025, 0.975])
    return Interval(math.fsum(changes) / len(changes), float(low), float(high))

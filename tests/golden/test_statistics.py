"""Estimates from judged completions against independent formulas and plain counting."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from grpo.evaluation.estimates import (
    Z95,
    Interval,
    majority_correct,
    mcnemar,
    mean_accuracy,
    mean_change,
    paired_change,
    pass_at_k,
    wilson,
)


def test_the_normal_quantile() -> None:
    # Phi(z) = (1 + erf(z / sqrt 2)) / 2 is 0.975 at its place.
    assert (1 + math.erf(Z95 / math.sqrt(2))) / 2 == pytest.approx(0.975, abs=1e-12)


@pytest.mark.parametrize(
    ("right", "num", "low", "high"),
    [
        # Newcombe (1998), table I, method 3: score intervals without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_intervals(right: int, num: int, low: float, high: float) -> None:
    found = wilson(right / num, num)
    assert found.value == right / num
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(("right", "num"), [(1, 3), (5, 10), (97, 100), (640, 1319)])
def test_wilson_ends_are_where_the_score_test_turns(right: int, num: int) -> None:
    """Wilson's definition: at each end p, (share - p)^2 = z^2 p (1 - p) / n."""
    found = wilson(right / num, num)
    for end in (found.low, found.high):
        assert (right / num - end) ** 2 == pytest.approx(Z95**2 * end * (1 - end) / num, abs=1e-12)
    assert 0 <= found.low < right / num < found.high <= 1


@pytest.mark.parametrize("num", [1, 2, 50])
def test_wilson_at_none_and_all(num: int) -> None:
    none, everything = wilson(0.0, num), wilson(1.0, num)
    assert none.low == pytest.approx(0, abs=1e-12)
    # With none right the upper end is z^2 / (n + z^2).
    assert none.high == pytest.approx(Z95**2 / (num + Z95**2), abs=1e-12)
    assert (everything.low, everything.high) == (pytest.approx(1 - none.high), pytest.approx(1))


def test_mean_accuracy_counts_problems_not_completions() -> None:
    # Shares of 1, 1/2 and 0 over three problems: 1/2, with the interval of three draws, not of six.
    found = mean_accuracy([[True, True], [True, False], [False, False]])
    assert found == wilson(0.5, 3)
    # z^2 / 3 = 1.280486: centre 0.5, half width 1.959964 / 2.280486 x sqrt(0.083333 + 0.106707) = 0.374660.
    assert (found.low, found.high) == (pytest.approx(0.125340, abs=1e-5), pytest.approx(0.874660, abs=1e-5))


def test_mean_accuracy_weighs_problems_alike() -> None:
    assert mean_accuracy([[True], [False, False, False]]).value == 0.5


@pytest.mark.parametrize("num", [1, 2, 5, 8])
def test_pass_at_k_is_plain_counting(num: int) -> None:
    """Of all ways to take k of the completions, the share that takes a right one."""
    for num_correct in range(num + 1):
        verdicts = [index < num_correct for index in range(num)]
        for k in range(1, num + 1):
            picks = [any(pick) for pick in combinations(verdicts, k)]
            assert pass_at_k(num, num_correct, k) == pytest.approx(sum(picks) / len(picks), abs=1e-12)


def test_pass_at_k_by_hand() -> None:
    # Two of four right: of the 6 pairs only one misses both.
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    assert pass_at_k(4, 3, 2) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0


@pytest.mark.parametrize(
    ("answers", "correct", "expected"),
    [
        (["7", "7", "8"], [True, True, False], 1.0),
        (["7", "8", "8"], [True, False, False], 0.0),
        (["7", "8"], [True, False], 0.5),  # two leaders, one right
        (["7", "8", "9"], [False, True, False], 1 / 3),
        (["7", "7", "8", "8", "9"], [True, True, False, False, False], 0.5),  # the 9 does not lead
        ([None, None, "7"], [False, False, True], 1.0),  # silence does not vote
        ([None, None, None], [False, False, False], 0.0),
        (["1/2", "0.5", "3", "3"], [True, True, False, False], 0.0),  # the same value, another string
    ],
)
def test_majority(answers: list[str | None], correct: list[bool], expected: float) -> None:
    assert majority_correct(answers, correct) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [
        (18, 2, 2 * (1 + 20 + 190) / 2**20),  # 0.0004
        (7, 1, 2 * (1 + 8) / 2**8),  # 0.0703
        (3, 1, 2 * (1 + 4) / 2**4),
        (6, 0, 2 / 2**6),
        (1, 0, 1.0),
        (5, 5, 1.0),  # twice the tail would be more than 1
        (0, 0, 1.0),
    ],
)
def test_mcnemar_is_twice_the_tail_of_fair_coins(gained: int, lost: int, expected: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_of_thousands_of_problems() -> None:
    # 2^1200 is beyond a float; all on one side: 2 / 2^1200.
    assert mcnemar(1200, 0) == 0.0
    assert 0.9 < mcnemar(2500, 2498) <= 1.0


def test_the_bootstrap_of_few_problems_is_plain_counting() -> None:
    # Of three problems one rose. A resample's mean is a third of Binomial(3, 1/3): 8, 12, 6 and 1 of 27 for 0, 1/3,
    # 2/3 and 1. The lowest 2.5 % lie at 0; up to 2/3 there are 26/27 = 96.3 %, so that 97.5 % are reached at 1.
    assert mean_change([1.0, 0.0, 0.0]) == Interval(pytest.approx(1 / 3), 0.0, 1.0)
    # Two changes that cancel: -1/2, 0 and 1/2 in 1, 2 and 1 of 4.
    assert mean_change([0.5, -0.5]) == Interval(0.0, -0.5, 0.5)


def test_the_bootstrap_of_many_problems_is_normal() -> None:
    # 18 gained, 2 lost, 180 as before: 0.08, standard error sqrt((20 / 200 - 0.08^2) / 200) = 0.021633; the bootstrap
    # moves in steps of 1 / 200.
    found = mean_change([1.0] * 18 + [-1.0] * 2 + [0.0] * 180)
    assert found.value == pytest.approx(0.08)
    assert found.low == pytest.approx(0.08 - Z95 * 0.021633, abs=0.005)
    assert found.high == pytest.approx(0.08 + Z95 * 0.021633, abs=0.005)
    assert found == mean_change([1.0] * 18 + [-1.0] * 2 + [0.0] * 180)  # the seed is fixed


def test_problems_are_paired_by_their_ids() -> None:
    before = {"a": [True], "b": [False], "gone": [True], "c": [False]}
    after = {"c": [False], "b": [True], "a": [True], "new": [False]}
    found = paired_change(before, after)
    assert found is not None
    assert (found.num_problems, found.gained, found.lost) == (3, ("b",), ())
    assert (found.num_right, found.num_wrong) == (1, 1)
    assert found.difference.value == pytest.approx(1 / 3)
    assert found.p_value == 1.0
    assert paired_change({"a": [True]}, {"b": [True]}) is None


def test_several_completions_are_compared_by_their_problems_means() -> None:
    # Means 1/4 -> 3/4, 1 -> 1/2 and 0 -> 0: the mean change is 0, with one problem gained and one lost.
    before = {"a": [True, False, False, False], "b": [True] * 4, "c": [False] * 4}
    after = {"a": [True, True, True, False], "b": [True, True, False, False], "c": [False] * 4}
    found = paired_change(before, after)
    assert found is not None
    assert (found.gained, found.lost, found.num_right, found.num_wrong) == (("a",), ("b",), 0, 1)
    assert found.p_value is None
    # Resamples of 1/2, -1/2 and 0: three times the same one is 1/27 = 3.7 % for each end.
    assert found.difference == Interval(0.0, -0.5, 0.5)
    assert not found.is_significant


def test_where_there_is_an_exact_test_it_decides() -> None:
    # 5 of 100 gained and none lost: the bootstrap's interval is off 0, the test says 2 / 2^5 = 0.0625.
    before = {str(i): [False] for i in range(100)}
    found = paired_change(before, before | {str(i): [True] for i in range(5)})
    assert found is not None
    assert found.difference.low > 0
    assert found.p_value == 0.0625
    assert not found.is_significant
    found = paired_change(before, before | {str(i): [True] for i in range(6)})
    assert found is not None
    assert found.is_significant

import math

import pytest
from scoring import checked, request_of

from rewards.parts.length import cosine_reward, length_reward, overlong_reward
from rewards.parts.options import CosineOptions, LengthOptions, OverlongOptions
from rewards.records import Outcome

RIGHT, WRONG = Outcome.CORRECT, Outcome.WRONG
OTHERS = [outcome for outcome in Outcome if outcome is not RIGHT]


def kimi(lengths, outcomes, step=0, **options):
    found = checked(lengths, outcomes)
    return length_reward(request_of(found, step=step), found, LengthOptions(**options))


def overlong(lengths, **options):
    return overlong_reward(request_of(checked(lengths, [RIGHT] * len(lengths))), OverlongOptions(**options))


def cosine(lengths, outcome, truncated=False, **options):
    found = checked(lengths, [outcome] * len(lengths), truncated)
    return cosine_reward(request_of(found), found, CosineOptions(**options))


def test_kimi_by_hand():
    lengths = [100, 150, 200, 300]
    assert kimi(lengths, [RIGHT] * 4) == [0.5, 0.25, 0.0, -0.5]
    assert kimi(lengths, [WRONG] * 4) == [0.0, 0.0, 0.0, -0.5]


def test_kimi_just_off_the_middle():
    """λ passes 0 at the middle, 200 of 100 to 300: a wrong answer gets nothing up to there and loses beyond."""
    assert kimi([100, 199, 200, 201, 300], [WRONG] * 5) == pytest.approx([0.0, 0.0, 0.0, -1 / 200, -0.5])


@pytest.mark.parametrize("outcome", OTHERS)
def test_only_right_answers_are_paid_for_shortness(outcome):
    assert kimi([10, 20], [outcome, RIGHT]) == [0.0, -0.5]


def test_kimi_is_zero_for_equal_lengths_and_before_the_warm_up_ends():
    assert kimi([7, 7, 7], [RIGHT, WRONG, RIGHT], step=9, warmup_steps=5) == [0.0, 0.0, 0.0]
    assert kimi([7], [RIGHT], step=9, warmup_steps=5) == [0.0]
    assert kimi([1, 2], [RIGHT, RIGHT], step=4, warmup_steps=5) == [0.0, 0.0]
    assert kimi([1, 2], [RIGHT, RIGHT], step=5, warmup_steps=5) == [0.5, -0.5]
    assert kimi([], []) == []


def test_dapo_kinks():
    lengths = [0, 16_384, 16_385, 18_432, 20_479, 20_480, 30_000]
    expected = [0.0, 0.0, -1 / 4096, -0.5, -4095 / 4096, -1.0, -1.0]
    assert overlong(lengths, max_tokens=20_480, cache_tokens=4_096) == expected


def test_dapo_with_a_ramp_as_long_as_the_limit():
    assert overlong([0, 1, 10, 11], max_tokens=10, cache_tokens=10) == [0.0, -0.1, -1.0, -1.0]


def test_cosine_has_the_constants_of_the_paper():
    """The cosine is 1, 0.5·√2, 0, -1 at 0, 1/4, 1/2 and the whole length."""
    quarter = (1 + math.sqrt(0.5)) / 2
    assert cosine([0, 250, 500], RIGHT, max_tokens=1000) == pytest.approx([2.0, 1 + quarter, 1.5])
    assert cosine([0, 250, 500], WRONG, max_tokens=1000) == pytest.approx([-10.0, -10 * quarter, -5.0])


@pytest.mark.parametrize(("outcome", "nearly"), [(RIGHT, 1.0), (WRONG, 0.0)])
def test_cosine_exceeds_from_the_limit_on(outcome, nearly):
    before, at, after = cosine([999, 1000, 1001], outcome, max_tokens=1000)
    assert before == pytest.approx(nearly, abs=1e-4)
    assert before != nearly
    assert (at, after) == (-10.0, -10.0)


def test_cosine_without_exceed_is_clamped():
    for outcome, end in ((RIGHT, 1.0), (WRONG, 0.0)):
        assert cosine([100, 101, 150, 200], outcome, max_tokens=100, exceed=None) == pytest.approx([end] * 4)


def test_cut_off_by_another_limit_exceeds_too():
    assert cosine([500], RIGHT, truncated=True, max_tokens=1000) == [-10.0]
    assert cosine([500], RIGHT, truncated=True, max_tokens=1000, exceed=None) == pytest.approx([1.5])


@pytest.mark.parametrize("outcome", OTHERS)
def test_cosine_takes_all_other_outcomes_for_wrong(outcome):
    assert cosine([0], outcome, max_tokens=10, r_wrong_0=-3.0) == [-3.0]


def test_cosine_falls_for_right_answers_and_rises_for_wrong_ones():
    lengths = list(range(0, 100, 7))
    right, wrong = cosine(lengths, RIGHT, max_tokens=100), cosine(lengths, WRONG, max_tokens=100)
    assert right == sorted(right, reverse=True)
    assert wrong == sorted(wrong)
    assert len({*right, *wrong}) == 2 * len(lengths)

import pytest

from rewards.length import length_reward, overlong_reward
from rewards.options import LengthOptions, OverlongOptions
from rewards.types import Outcome

RIGHT, WRONG = Outcome.CORRECT, Outcome.WRONG


def test_kimi_by_hand():
    lengths = [100, 150, 200, 300]
    assert length_reward(lengths, [RIGHT] * 4, 0, LengthOptions()) == [0.5, 0.25, 0.0, -0.5]
    assert length_reward(lengths, [WRONG] * 4, 0, LengthOptions()) == [0.0, 0.0, 0.0, -0.5]


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not RIGHT])
def test_only_right_answers_are_paid_for_shortness(outcome):
    assert length_reward([10, 20], [outcome, RIGHT], 0, LengthOptions()) == [0.0, -0.5]


def test_kimi_is_zero_for_equal_lengths_and_before_the_warm_up_ends():
    options = LengthOptions(warmup_steps=5)
    assert length_reward([7, 7, 7], [RIGHT, WRONG, RIGHT], 9, options) == [0.0, 0.0, 0.0]
    assert length_reward([7], [RIGHT], 9, options) == [0.0]
    assert length_reward([1, 2], [RIGHT, RIGHT], 4, options) == [0.0, 0.0]
    assert length_reward([1, 2], [RIGHT, RIGHT], 5, options) == [0.5, -0.5]


def test_dapo_kinks():
    options = OverlongOptions(max_tokens=20_480, cache_tokens=4_096)
    lengths = [0, 16_384, 16_385, 18_432, 20_479, 20_480, 30_000]
    expected = [0.0, 0.0, -1 / 4096, -0.5, -4095 / 4096, -1.0, -1.0]
    assert overlong_reward(lengths, options) == expected

"""Group advantages against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from grpo.advantages import STD_FLOOR, group_advantages, is_dead


def test_with_the_sample_deviation() -> None:
    # rewards 1 0 0 1 0: mean 0.4, squared distances 2 x 0.36 + 3 x 0.16 = 1.2, over 5 - 1 gives a variance of 0.3.
    scale = math.sqrt(0.3) + 1e-4
    expected = [0.6 / scale, -0.4 / scale, -0.4 / scale, 0.6 / scale, -0.4 / scale]
    assert group_advantages([1, 0, 0, 1, 0]) == pytest.approx(expected, abs=1e-12)
    # The same as plain digits: sqrt(0.3) = 0.5477225575, and 0.6 / 0.5478225575 = 1.0952451...
    assert group_advantages([1, 0, 0, 1, 0])[0] == pytest.approx(1.0952451, abs=1e-6)


def test_without_a_deviation() -> None:
    # mean of 2, 0.5, 0, 1.5 is 1
    assert group_advantages([2, 0.5, 0, 1.5], "none") == [1.0, -0.5, -1.0, 0.5]


def test_a_group_of_two() -> None:
    # Distances of 0.5 on either side: the variance is (0.25 + 0.25) / 1 = 0.5.
    expected = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert group_advantages([1, 0]) == pytest.approx([expected, -expected], abs=1e-12)
    assert expected == pytest.approx(0.7070068, abs=1e-6)
    assert group_advantages([1, 0], "none") == [0.5, -0.5]


def test_the_floor_stands_outside_the_root() -> None:
    # 0 and 2e-4: both are 1e-4 from the mean, and the deviation is sqrt(2e-8) = 1.41421e-4.
    # 1e-4 / (1.41421e-4 + 1e-4) = 1 / 2.41421 = 0.414214. Inside the root, the floor would give 0.0100.
    assert group_advantages([0.0, 2e-4]) == pytest.approx([-0.41421356, 0.41421356], abs=1e-6)
    assert STD_FLOOR == 1e-4


def test_the_floor_keeps_a_hair_of_difference_small() -> None:
    # One reward in eight is off by 1e-7: without a floor its advantage would be sqrt(7) (7/8 / sqrt(1/8)) = 2.47.
    advantages = group_advantages([0.5 + 1e-7, *[0.5] * 7])
    assert 0 < advantages[0] < 1e-3


@pytest.mark.parametrize("scale", ["std", "none"])
@pytest.mark.parametrize("constant", [0.1, 1 / 3, 0.7, 1e-300, 1e16, -2.1, 0.0, 1.0])
@pytest.mark.parametrize("size", [2, 3, 7, 8, 64])
def test_equal_rewards_give_exact_zeros(constant: float, size: int, scale: str) -> None:
    rewards = [constant] * size
    assert is_dead(rewards)
    advantages = group_advantages(rewards, scale)  # type: ignore[arg-type]
    assert advantages == [0.0] * size


def test_eight_tenths_are_the_awkward_case() -> None:
    """Added up one by one they do not give eight times a tenth, so that a rounded mean would not be the reward."""
    assert sum([0.1] * 8) / 8 != 0.1
    assert group_advantages([0.1] * 8) == [0.0] * 8


def test_nearly_equal_is_not_dead() -> None:
    above = 0.1 + 1e-15
    assert not is_dead([0.1, above])
    low, high = group_advantages([0.1, above])
    assert low < 0 < high


@pytest.mark.parametrize("shift", [1.0, -3.0, 1000.0])
def test_a_shift_of_all_rewards_changes_nothing(shift: float) -> None:
    rewards = [1.0, 0.0, 0.25, 2.0, 0.0]
    moved = [reward + shift for reward in rewards]
    for scale in ("std", "none"):
        expected = pytest.approx(group_advantages(rewards, scale), abs=1e-9)  # type: ignore[arg-type]
        assert group_advantages(moved, scale) == expected  # type: ignore[arg-type]


def test_advantages_add_up_to_nothing_and_follow_their_completion() -> None:
    rewards = [0.3, 1.7, 0.9, 0.3, -2.0, 1.1]
    advantages = group_advantages(rewards)
    assert math.fsum(advantages) == pytest.approx(0, abs=1e-12)
    order = [4, 0, 5, 2, 1, 3]
    assert group_advantages([rewards[index] for index in order]) == [advantages[index] for index in order]
    assert max(zip(advantages, rewards, strict=True)) == (advantages[1], 1.7)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        group_advantages([1.0, bad, 0.0])
    with pytest.raises(ValueError, match="not finite"):
        group_advantages([bad, bad], "none")

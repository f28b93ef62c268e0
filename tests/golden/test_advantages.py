"""Advantages against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from grpo.advantages.formulas import (
    STD_FLOOR,
    Moments,
    batch_deviation,
    charged_from,
    group_mean,
    group_std,
    is_dead,
    leave_one_out,
    part_advantages,
    part_pulls,
    pooled_scale,
    pull_shares,
    sum_pulls,
)

Advantage = Callable[[list[float]], list[float]]


def batch_std(returns: list[float]) -> list[float]:
    """Each number's distance from the mean of all, in deviations of all, as `pooled_scale` has it of single numbers."""
    scale = pooled_scale([Moments(1, one, 0.0, one, one) for one in returns])
    return [(one - scale[0]) / scale[1] for one in returns] if scale else [0.0] * len(returns)


EVERY = [group_std, group_mean, leave_one_out, batch_std]


def test_with_the_sample_deviation() -> None:
    # rewards 1 0 0 1 0: mean 0.4, squared distances 2 x 0.36 + 3 x 0.16 = 1.2, over 5 - 1 gives a variance of 0.3.
    scale = math.sqrt(0.3) + 1e-4
    expected = [0.6 / scale, -0.4 / scale, -0.4 / scale, 0.6 / scale, -0.4 / scale]
    assert group_std([1, 0, 0, 1, 0]) == pytest.approx(expected, abs=1e-12)
    # The same as plain digits: sqrt(0.3) = 0.5477225575, and 0.6 / 0.5478225575 = 1.0952451...
    assert group_std([1, 0, 0, 1, 0])[0] == pytest.approx(1.0952451, abs=1e-6)


def test_without_a_deviation() -> None:
    # mean of 2, 0.5, 0, 1.5 is 1
    assert group_mean([2, 0.5, 0, 1.5]) == [1.0, -0.5, -1.0, 0.5]


def test_a_group_of_two() -> None:
    # Distances of 0.5 on either side: the variance is (0.25 + 0.25) / 1 = 0.5.
    expected = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert group_std([1, 0]) == pytest.approx([expected, -expected], abs=1e-12)
    assert expected == pytest.approx(0.7070068, abs=1e-6)
    assert group_mean([1, 0]) == [0.5, -0.5]


def test_the_floor_stands_outside_the_root() -> None:
    # 0 and 2e-4: both are 1e-4 from the mean, and the deviation is sqrt(2e-8) = 1.41421e-4.
    # 1e-4 / (1.41421e-4 + 1e-4) = 1 / 2.41421 = 0.414214. Inside the root, the floor would give 0.0100.
    assert group_std([0.0, 2e-4]) == pytest.approx([-0.41421356, 0.41421356], abs=1e-6)
    assert STD_FLOOR == 1e-4


def test_the_floor_keeps_a_hair_of_difference_small() -> None:
    # One reward in eight is off by 1e-7: without a floor its advantage would be sqrt(7) (7/8 / sqrt(1/8)) = 2.47.
    advantages = group_std([0.5 + 1e-7, *[0.5] * 7])
    assert 0 < advantages[0] < 1e-3


def test_leave_one_out_by_hand() -> None:
    # 2 less the mean of 0.5, 0 and 1.5, and so on: 2 - 2/3, 0.5 - 3.5/3, 0 - 4/3, 1.5 - 2.5/3.
    assert leave_one_out([2, 0.5, 0, 1.5]) == pytest.approx([4 / 3, -2 / 3, -4 / 3, 2 / 3], abs=1e-12)
    assert leave_one_out([1, 0]) == [1.0, -1.0]


def test_leave_one_out_is_what_it_says() -> None:
    rewards = np.array([0.3, 1.7, 0.9, 0.3, -2.0, 1.1])
    others = np.array([np.delete(rewards, index).mean() for index in range(6)])
    assert leave_one_out(rewards.tolist()) == pytest.approx((rewards - others).tolist(), abs=1e-12)


def test_batch_deviations_by_hand() -> None:
    # Returns of all tokens of a step: 1 1 1 0 0: mean 0.6, squares 3 x 0.16 + 2 x 0.36 = 1.2, over 4 gives 0.3.
    scale = math.sqrt(0.3) + 1e-4
    assert batch_std([1, 1, 1, 0, 0]) == pytest.approx([0.4 / scale] * 3 + [-0.6 / scale] * 2, abs=1e-12)


def test_batch_deviations_in_numpy() -> None:
    returns = np.array([0.25, -1.0, 0.25, 3.0, 0.5, 0.5, 0.75])
    expected = (returns - returns.mean()) / (returns.std(ddof=1) + 1e-4)
    assert batch_std(returns.tolist()) == pytest.approx(expected.tolist(), abs=1e-12)


def test_parts_are_pooled_by_hand() -> None:
    # 1 1 1 and 0 2 as parts: means 1 and 1, squares 0 and 2. All five: mean 1, squares 2, over 4 gives 0.5.
    parts = [Moments(3, 1.0, 0.0, 1.0, 1.0), Moments(2, 1.0, 2.0, 0.0, 2.0)]
    assert pooled_scale(parts) == pytest.approx((1.0, math.sqrt(0.5) + 1e-4), abs=1e-12)
    # 1 1 1 and 3 3: mean 9 / 5, squares 3 x 0.64 + 2 x 1.44 = 4.8, over 4 gives 1.2.
    apart = [Moments(3, 1.0, 0.0, 1.0, 1.0), Moments(2, 3.0, 0.0, 3.0, 3.0)]
    assert pooled_scale(apart) == pytest.approx((1.8, math.sqrt(1.2) + 1e-4), abs=1e-12)


def test_parts_in_numpy() -> None:
    draw = np.random.default_rng(3)
    rows = [draw.normal(loc, 2.0, size) for loc, size in ((0.0, 5), (3.0, 1), (-1.0, 40))]
    parts = [Moments(len(row), row.mean(), ((row - row.mean()) ** 2).sum(), row.min(), row.max()) for row in rows]
    together = np.concatenate(rows)
    assert pooled_scale(parts) == pytest.approx((together.mean(), together.std(ddof=1) + 1e-4), abs=1e-12)


def test_parts_that_are_all_the_same_number_have_no_scale() -> None:
    assert pooled_scale([Moments(3, 0.1, 0.0, 0.1, 0.1), Moments(1, 0.1, 0.0, 0.1, 0.1)]) is None
    above = math.nextafter(0.1, 1)
    assert pooled_scale([Moments(3, 0.1, 0.0, 0.1, 0.1), Moments(1, above, 0.0, above, above)]) is not None
    assert pooled_scale([]) is None


def test_what_is_charged_from_a_token_on() -> None:
    assert charged_from(np.array([0.5, -0.25, 2.0], np.float32)).tolist() == [2.25, 1.75, 2.0]


@pytest.mark.parametrize("advantage", EVERY)
@pytest.mark.parametrize("constant", [0.1, 1 / 3, 0.7, 1e-300, 1e16, -2.1, 0.0, 1.0])
@pytest.mark.parametrize("size", [2, 3, 7, 8, 64])
def test_equal_rewards_give_exact_zeros(constant: float, size: int, advantage: Advantage) -> None:
    rewards = [constant] * size
    assert is_dead(rewards)
    assert advantage(rewards) == [0.0] * size


def test_eight_tenths_are_the_awkward_case() -> None:
    """Added up one by one they do not give eight times a tenth, so that a rounded mean would not be the reward."""
    assert sum([0.1] * 8) / 8 != 0.1
    assert group_std([0.1] * 8) == [0.0] * 8


def test_nearly_equal_is_not_dead() -> None:
    above = 0.1 + 1e-15
    assert not is_dead([0.1, above])
    low, high = group_std([0.1, above])
    assert low < 0 < high


@pytest.mark.parametrize("advantage", EVERY)
@pytest.mark.parametrize("shift", [1.0, -3.0, 1000.0])
def test_a_shift_of_all_rewards_changes_nothing(shift: float, advantage: Advantage) -> None:
    rewards = [1.0, 0.0, 0.25, 2.0, 0.0]
    moved = [reward + shift for reward in rewards]
    assert advantage(moved) == pytest.approx(advantage(rewards), abs=1e-9)


@pytest.mark.parametrize("advantage", EVERY)
def test_advantages_add_up_to_nothing_and_follow_their_completion(advantage: Advantage) -> None:
    rewards = [0.3, 1.7, 0.9, 0.3, -2.0, 1.1]
    advantages = advantage(rewards)
    assert math.fsum(advantages) == pytest.approx(0, abs=1e-12)
    order = [4, 0, 5, 2, 1, 3]
    assert advantage([rewards[index] for index in order]) == [advantages[index] for index in order]
    assert max(zip(advantages, rewards, strict=True)) == (advantages[1], 1.7)


@pytest.mark.parametrize("advantage", EVERY)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_an_error(bad: float, advantage: Advantage) -> None:
    with pytest.raises(ValueError, match="not finite"):
        advantage([1.0, bad, 0.0])
    with pytest.raises(ValueError, match="not finite"):
        advantage([bad, bad])


# By parts

CORRECTNESS = (1.0, 0.0, 0.0, 1.0)
FORMAT = (1.0, 1.0, 0.0, None)
PARTS = {"correctness": CORRECTNESS, "format": FORMAT}
WEIGHTS = {"correctness": 1.0, "format": 0.5}


def test_a_part_is_normalised_over_the_opinions_on_it() -> None:
    # 1 0 0 1: all half away from the mean, variance 4 x 1/4 / 3 = 1/3.
    scale = math.sqrt(1 / 3) + 1e-4
    assert part_advantages(CORRECTNESS) == pytest.approx([0.5 / scale, -0.5 / scale, -0.5 / scale, 0.5 / scale])
    # 1 1 0: mean 2/3, squared distances 1/9 + 1/9 + 4/9 = 2/3, over 3 - 1 gives 1/3 again. Who has no opinion gets 0.
    expected = [1 / 3 / scale, 1 / 3 / scale, -2 / 3 / scale, 0.0]
    assert part_advantages(FORMAT) == pytest.approx(expected, abs=1e-12)
    assert part_advantages((None, *FORMAT[:3])) == [0.0, *part_advantages(FORMAT)[:3]]


@pytest.mark.parametrize(
    "part", [(0.1,) * 8, (None, 0.1, 0.1, 0.1), (None, 5.0, None), (None, None), (-0.0, 0.0)], ids=str
)
def test_a_part_without_differences_adds_exactly_nothing(part: tuple[float | None, ...]) -> None:
    assert part_advantages(part) == [0.0] * len(part)
    assert [pull["a"] for pull in part_pulls({"a": part}, {"a": 3.0})] == [0.0] * len(part)


def test_a_bad_opinion_is_an_error() -> None:
    with pytest.raises(ValueError, match="not finite"):
        part_advantages((1.0, None, math.nan))


def test_pulls_of_parts_by_hand() -> None:
    scale = math.sqrt(1 / 3) + 1e-4
    pulls = part_pulls(PARTS, WEIGHTS)
    assert [pull["correctness"] * scale for pull in pulls] == pytest.approx([1 / 2, -1 / 2, -1 / 2, 1 / 2])
    assert [pull["format"] * scale for pull in pulls] == pytest.approx([1 / 6, 1 / 6, -1 / 3, 0], abs=1e-12)


def test_pulls_of_a_sum_by_hand() -> None:
    # Weighted, 1 0 0 1 and 1/2 1/2 0 0: what has no opinion adds nothing to the reward. The means are 1/2 and 1/4.
    assert sum_pulls(PARTS, WEIGHTS) == [
        {"correctness": 0.5, "format": 0.25},
        {"correctness": -0.5, "format": 0.25},
        {"correctness": -0.5, "format": -0.25},
        {"correctness": 0.5, "format": -0.25},
    ]


def test_pulls_of_a_sum_add_up_to_the_advantage() -> None:
    parts = {"a": (0.3, 1.7, None, 0.3), "b": (-2.0, 0.9, 0.4, 1.1), "c": (0.1, 0.1, 0.1, 0.1)}
    weights = {"a": 2.0, "b": -0.7, "c": 5.0}
    rewards = [
        math.fsum(weights[name] * value for name, part in parts.items() if (value := part[index]) is not None)
        for index in range(4)
    ]
    pulls = sum_pulls(parts, weights)
    assert [math.fsum(pull.values()) for pull in pulls] == pytest.approx(group_mean(rewards), abs=1e-12)
    assert [pull["c"] for pull in pulls] == [0.0] * 4


def test_the_deviation_of_a_batch_by_hand() -> None:
    # 3, -3, 1, -1, 0, 0: squares add up to 20, over 6 - 1 gives 4.
    assert batch_deviation([3, -3, 1, -1, 0, 0]) == pytest.approx(2 + 1e-4, abs=1e-12)
    assert batch_deviation([0.0] * 6) == STD_FLOOR


def test_shares_by_hand() -> None:
    # |A| of 2, 1, 0 and 1, shared out 3 : 1, 1 : 1, not at all, and 0 : 1: (2 x 3/4 + 1/2) / 4 and (2/4 + 1/2 + 1) / 4.
    pulls = [{"a": 3.0, "b": -1.0}, {"a": -0.5, "b": -0.5}, {"a": 7.0, "b": -7.0}, {"a": 0.0, "b": 0.1}]
    assert pull_shares([2.0, -1.0, 0.0, 1.0], pulls) == pytest.approx({"a": 2 / 4, "b": 2 / 4})
    # The second alone is twice as strong: (2 x 3/4 + 2 x 1/2) / 5.
    assert pull_shares([2.0, -2.0, 0.0, 1.0], pulls) == pytest.approx({"a": 2.5 / 5, "b": 2.5 / 5})
    assert pull_shares([8.0, 0.0, 0.0, 2.0], pulls) == pytest.approx({"a": 6 / 10, "b": 4 / 10})


def test_without_advantages_there_are_no_shares() -> None:
    assert pull_shares([0.0, 0.0], [{"a": 1.0, "b": -1.0}, {"a": -1.0, "b": 1.0}]) == {}
    assert pull_shares([], []) == {}


def test_parts_that_cancel_but_for_rounding_have_no_say() -> None:
    """0.1 + 0.2 is not 0.3: a group that teaches next to nothing, whose parts pull with all their might."""
    rewards = (0.1 + 0.2, 0.3)
    assert not is_dead(rewards)
    cancelling = sum_pulls({"a": (0.1 + 0.2, 0.0), "b": (0.0, 0.3)}, {"a": 1.0, "b": 1.0})
    plain = sum_pulls({"a": (1.0, 0.0), "b": (0.0, 0.0)}, {"a": 1.0, "b": 1.0})
    shares = pull_shares([*group_std(rewards), *group_std((1.0, 0.0))], [*cancelling, *plain])
    assert shares == pytest.approx({"a": 1.0, "b": 0.0}, abs=1e-9)

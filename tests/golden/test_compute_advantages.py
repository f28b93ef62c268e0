"""All advantages of a step, by the sum of the rewards and by their parts, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from groups import completion_of, credit_of, floats, prompt_of

from grpo.advantages.compute import token_advantages
from grpo.recipe.sections import UpdateSection
from grpo.records import CreditedGroup, Group, KlCosts, ScoredGroup
from grpo.run.metrics import advantage_shares
from rewards.records import Outcome, Score
from rewards.spec import RewardSpec

REWARDS = (RewardSpec(name="correctness"), RewardSpec(name="format", weight=0.5))
SUM = UpdateSection(lr=1e-3)
PARTS = UpdateSection(lr=1e-3, advantage="gdpo")


def group(*parts: tuple[float | None, float | None], lengths: Sequence[int] = ()) -> ScoredGroup:
    """A group from (correctness, format) of each completion; of one token each, unless there are lengths."""
    scores = tuple(
        Score((right or 0.0) + 0.5 * (form or 0.0), {"correctness": right, "format": form}, Outcome.WRONG, None)
        for right, form in parts
    )
    completions = tuple(completion_of((5,) * n) for n in lengths or [1] * len(parts))
    return ScoredGroup(Group(prompt_of((3, 4)), completions, 0, 0), scores)


def draw(scored: Sequence[ScoredGroup], rewards: Sequence[RewardSpec], settings: UpdateSection) -> list[CreditedGroup]:
    """Where the KL costs nothing."""
    return credit_of(scored, rewards, settings)


MIXED = group((1, 1), (0, 1), (0, 0), (1, None))
DEAD = group((0, 1), (0, 1), (0, 1), (0, 1))


def test_by_parts_by_hand() -> None:
    # Both parts of the first group have the deviation s = sqrt(1/3) + 1e-4 (see test_advantages), so that their
    # weighted sums are 1/2 + 1/6, -1/2 + 1/6, -1/2 - 1/3 and 1/2, all over s. Squares: (16 + 4 + 25 + 9) / 36 = 3/2.
    # The four zeros of the dead group count: the deviation of all eight is sqrt(3/2 / 7) / s + 1e-4.
    scale = math.sqrt(1 / 3) + 1e-4
    deviation = math.sqrt(1.5 / 7) / scale + 1e-4
    first, second = draw([MIXED, DEAD], REWARDS, PARTS)
    expected = [value / scale / deviation for value in (2 / 3, -1 / 3, -5 / 6, 1 / 2)]
    assert first.advantages == pytest.approx(expected, abs=1e-12)
    assert expected[0] == pytest.approx(1.44, abs=1e-3)
    assert second.advantages == (0.0,) * 4
    assert (first.is_dead, second.is_dead) == (False, True)


def test_shares_by_parts_by_hand() -> None:
    # |A| is as 4 : 2 : 5 : 3, of which correctness decides 3/4, 3/4, 3/5 and all: (3 + 3/2 + 3 + 3) / 14 = 3/4.
    credited_groups = draw([MIXED, DEAD], REWARDS, PARTS)
    assert advantage_shares(credited_groups) == pytest.approx({"correctness": 3 / 4, "format": 1 / 4})


def test_by_the_sum_by_hand() -> None:
    # Rewards 1.5, 0.5, 0, 1: mean 3/4, squared distances (9 + 1 + 9 + 1) / 16 = 5/4, over 3 gives 5/12.
    scale = math.sqrt(5 / 12) + 1e-4
    first, second = draw([MIXED, DEAD], REWARDS, SUM)
    assert first.advantages == pytest.approx([0.75 / scale, -0.25 / scale, -0.75 / scale, 0.25 / scale], abs=1e-12)
    assert second.advantages == (0.0,) * 4
    # Correctness pulls with 1/2 and format with 1/4 everywhere.
    assert advantage_shares([first, second]) == pytest.approx({"correctness": 2 / 3, "format": 1 / 3})


def test_one_reward_alone_has_all_the_say() -> None:
    credited_groups = draw([MIXED, DEAD], [REWARDS[0], RewardSpec(name="format", weight=0.0)], PARTS)
    assert advantage_shares(credited_groups) == {"correctness": 1.0, "format": 0.0}


def test_what_a_sum_makes_equal_the_parts_keep_apart() -> None:
    """The paper's point: better in both rewards is more than better in one, which the sum's deviation takes back."""
    better_in_both, better_in_one = group((1, 1), (0, 0)), group((1, 0), (0, 0))
    both, one = draw([better_in_both, better_in_one], REWARDS, SUM)
    assert both.advantages == pytest.approx(one.advantages, abs=1e-3)
    both, one = draw([better_in_both, better_in_one], REWARDS, PARTS)
    assert both.advantages == pytest.approx([1.5 * value for value in one.advantages])


def test_parts_that_cancel_exactly_are_dead() -> None:
    """Right without the form against the form alone: nothing is learnt where the two weigh the same."""
    traded = group((1, 0), (0, 1), (1, 0), (1, 0))
    assert not draw([traded], REWARDS, PARTS)[0].is_dead
    assert draw([traded], [RewardSpec(name="correctness", weight=0.5), REWARDS[1]], PARTS)[0].is_dead


def test_how_groups_are_cut_and_ordered_changes_nothing() -> None:
    other = group((1, 0), (0, None), (0, 1), (0, 0))
    credited_groups = draw([MIXED, DEAD, other], REWARDS, PARTS)
    again = draw([other, MIXED, DEAD], REWARDS, PARTS)
    assert [credited.advantages for credited in again] == [credited_groups[index].advantages for index in (2, 0, 1)]


def test_a_step_without_differences_is_all_zeros() -> None:
    assert [credited.advantages for credited in draw([DEAD, DEAD], REWARDS, PARTS)] == [(0.0,) * 4] * 2


# A KL in the reward

MEAN = UpdateSection(lr=1e-3, advantage="group_mean")
PAIR = group((1, None), (0, None), lengths=(2, 3))
COSTS: KlCosts = (floats(0.1, 0.3), floats(0.0, -0.2, 0.1))


def test_what_a_completion_cost_is_taken_off_what_its_reward_is_worth() -> None:
    # 1/2 - 0.4 and -1/2 + 0.1: the costs are not compared with those of the group. The tokens share what is left.
    [credited] = credit_of([PAIR], REWARDS, MEAN, [COSTS])
    assert credited.advantages == pytest.approx((0.1, -0.4), abs=1e-7)
    assert credited.charge_scale == 0
    assert flat([credited]) == pytest.approx([0.1] * 2 + [-0.4] * 3, abs=1e-7)
    assert credited.pulls == ({"correctness": 0.5, "format": 0.0}, {"correctness": -0.5, "format": 0.0})


@pytest.mark.parametrize("advantage", ["group_std", "group_mean", "leave_one_out", "group_batch"])
def test_the_kl_alone_makes_no_advantage_of_equal_rewards(advantage: str) -> None:
    """Costs a thousandth apart are noise. Divided by their own deviation they would pull as hard as any reward."""
    equal = group((1, None), (1, None), (1, None))
    costs: KlCosts = (floats(0.001), floats(0.0), floats(-0.001))
    update = UpdateSection(lr=1e-3, advantage=advantage)  # type: ignore[arg-type]
    dead, alive = credit_of([equal, PAIR], REWARDS, update, [costs, COSTS])
    assert dead.is_dead
    assert flat([dead]) == [0.0] * 3
    assert not alive.is_dead


def test_the_size_of_a_charge_is_the_kls_own() -> None:
    """Ten times the cost is ten times the charge, though the deviation of the rewards divides what they are worth."""
    update = UpdateSection(lr=1e-3, advantage="group_std")
    free, once, ten = (
        credit_of([PAIR], REWARDS, update, costs)[0].advantages[0]
        for costs in ([], [(floats(0.01, 0), floats(0, 0, 0))], [(floats(0.1, 0), floats(0, 0, 0))])
    )
    assert (free - once, free - ten) == pytest.approx((0.01, 0.1), abs=1e-8)


# Over the step: REINFORCE++

BATCH = UpdateSection(lr=1e-3, objective="reinforce_pp")
BASELINE = UpdateSection(lr=1e-3, objective="reinforce_pp_baseline")
LONG = group((1, None), (0, None), lengths=(1, 3))
ALL_RIGHT = group((1, None), (1, None), lengths=(2, 2))


def flat(credited_groups: Sequence[CreditedGroup]) -> list[float]:
    return [value for credited in credited_groups for row in token_advantages(credited) for value in row]


def charged(credited_groups: Sequence[CreditedGroup], costs: Sequence[KlCosts]) -> list[float]:
    """The same, where the KL costs something."""
    pairs = zip(credited_groups, costs, strict=True)
    return [value for credited, cost in pairs for row in token_advantages(credited, cost) for value in row]


def test_over_the_step_by_hand() -> None:
    # Tokens 1, 0 0 0, 1 1, 1 1: mean 5/8, squares 5 x 9/64 + 3 x 25/64 = 15/8, over 7 gives 15/56.
    scale = math.sqrt(15 / 56) + 1e-4
    up, down = 3 / 8 / scale, -5 / 8 / scale
    credited_groups = draw([LONG, ALL_RIGHT], REWARDS, BATCH)
    assert flat(credited_groups) == pytest.approx([up, down, down, down, up, up, up, up], abs=1e-12)
    # A group whose rewards are all the same is worth something here: it is better than the step.
    assert not credited_groups[1].is_dead
    assert advantage_shares(credited_groups) == {"correctness": 1.0, "format": 0.0}


def test_over_the_step_less_the_groups_mean_by_hand() -> None:
    # Tokens 1/2, -1/2 x 3, 0 x 4: mean -1/8, squares 25/64 + 3 x 9/64 + 4 x 1/64 = 7/8, over 7 gives 1/8.
    scale = math.sqrt(1 / 8) + 1e-4
    first, second = draw([LONG, ALL_RIGHT], REWARDS, BASELINE)
    assert flat([first]) == pytest.approx([5 / 8 / scale, *[-3 / 8 / scale] * 3], abs=1e-12)
    assert second.advantages == (0.0, 0.0)


@pytest.mark.parametrize("settings", [BATCH, BASELINE], ids=["alone", "baseline"])
def test_each_token_is_charged_for_what_follows_it(settings: UpdateSection) -> None:
    """In NumPy: returns less the costs from each token on, then less their mean, over their deviation. Less the group's
    mean, equal rewards are 0 and charged nothing, and their tokens count."""
    costs: list[KlCosts] = [COSTS, (floats(0.2), floats(0.1, 0.1, -0.4)), (floats(0.0, 0.5), floats(0.0, 0.0))]
    scored = [PAIR, LONG, ALL_RIGHT]
    returns = []
    for one, cost in zip(scored, costs, strict=True):
        rewards = one.summary().rewards
        baseline = np.mean(rewards) if settings is BASELINE else 0
        free = settings is BASELINE and one is ALL_RIGHT
        for reward, row in zip(rewards, cost, strict=True):
            later = [0.0 if free else float(row[start:].sum(dtype=np.float64)) for start in range(len(row))]
            returns.append([reward - baseline - one for one in later])
    values = np.concatenate(returns)
    expected = (values - values.mean()) / (values.std(ddof=1) + 1e-4)
    if settings is BASELINE:
        expected[-4:] = 0
    found = charged(credit_of(scored, REWARDS, settings, costs), costs)
    assert found == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize("settings", [BATCH, BASELINE], ids=["alone", "baseline"])
def test_a_step_of_equal_rewards_is_all_exact_zeros(settings: UpdateSection) -> None:
    equal = group((0.1, 0.3), (0.1, 0.3), (0.1, 0.3), lengths=(3, 1, 7))
    assert all(credited.is_dead for credited in draw([equal, equal], REWARDS, settings))


@pytest.mark.parametrize("settings", [BATCH, BASELINE], ids=["alone", "baseline"])
def test_a_constant_on_every_reward_of_the_step_changes_nothing(settings: UpdateSection) -> None:
    moved = [group((1, 4), (0, 4), lengths=(1, 3)), group((1, 4), (1, 4), lengths=(2, 2))]
    expected = pytest.approx(flat(draw([LONG, ALL_RIGHT], REWARDS, settings)), abs=1e-9)
    assert flat(draw(moved, REWARDS, settings)) == expected


def test_a_constant_on_one_groups_rewards_changes_nothing_less_the_groups_mean() -> None:
    moved = [LONG, group((1, 4), (0, 4), lengths=(2, 3))]
    expected = pytest.approx(flat(draw([LONG, PAIR], REWARDS, BASELINE)), abs=1e-9)
    assert flat(draw(moved, REWARDS, BASELINE)) == expected
    assert flat(draw(moved, REWARDS, BATCH)) != pytest.approx(flat(draw([LONG, PAIR], REWARDS, BATCH)), abs=1e-2)


def test_shares_over_the_step_by_hand() -> None:
    # Correctness 1 0 and 1 1, format 0 0 and 1 1 at half the weight. Less the means over all four, 3/4 and 1/4:
    # correctness 1/4, -3/4, 1/4, 1/4; format -1/4, -1/4, 1/4, 1/4. All completions have one token, rewards 1, 0, 3/2,
    # 3/2 with mean 1, so that |A| is as 0 : 2 : 1 : 1, shared out 3 : 1, 1 : 1 and 1 : 1.
    credited_groups = draw([group((1, 0), (0, 0)), group((1, 1), (1, 1))], REWARDS, BATCH)
    assert advantage_shares(credited_groups) == pytest.approx({"correctness": 2.5 / 4, "format": 1.5 / 4})

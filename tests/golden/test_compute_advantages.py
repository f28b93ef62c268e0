"""All advantages of a step, by the sum of the rewards and by their parts, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from data.problem import Problem
from grpo.advantages.compute import compute_advantages
from grpo.recipe.sections import UpdateSection, advantage_of
from grpo.records import Completion, CreditedGroup, Group, KlCosts, Prompt, ScoredGroup
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
    prompt = Prompt(Problem("toy/train/0", "?", "1", "integer", "toy", 0), (3, 4))
    completions = tuple(Completion((5,) * n, (-0.5,) * n, "", "stop") for n in lengths or [1] * len(parts))
    return ScoredGroup(Group(prompt, completions, 0, 0), scores)


def draw(scored: Sequence[ScoredGroup], rewards: Sequence[RewardSpec], settings: UpdateSection) -> list[CreditedGroup]:
    """Where the KL costs nothing."""
    return compute_advantages(scored, [((),) * len(one.scores) for one in scored], rewards, advantage_of(settings))


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
    assert first.of_completions == pytest.approx(expected, abs=1e-12)
    assert expected[0] == pytest.approx(1.44, abs=1e-3)
    assert second.of_completions == (0.0,) * 4
    assert (first.is_dead, second.is_dead) == (False, True)


def test_shares_by_parts_by_hand() -> None:
    # |A| is as 4 : 2 : 5 : 3, of which correctness decides 3/4, 3/4, 3/5 and all: (3 + 3/2 + 3 + 3) / 14 = 3/4.
    credited_groups = draw([MIXED, DEAD], REWARDS, PARTS)
    assert advantage_shares(credited_groups) == pytest.approx({"correctness": 3 / 4, "format": 1 / 4})


def test_by_the_sum_by_hand() -> None:
    # Rewards 1.5, 0.5, 0, 1: mean 3/4, squared distances (9 + 1 + 9 + 1) / 16 = 5/4, over 3 gives 5/12.
    scale = math.sqrt(5 / 12) + 1e-4
    first, second = draw([MIXED, DEAD], REWARDS, SUM)
    assert first.of_completions == pytest.approx([0.75 / scale, -0.25 / scale, -0.75 / scale, 0.25 / scale], abs=1e-12)
    assert second.of_completions == (0.0,) * 4
    # Correctness pulls with 1/2 and format with 1/4 everywhere.
    assert advantage_shares([first, second]) == pytest.approx({"correctness": 2 / 3, "format": 1 / 3})


def test_one_reward_alone_has_all_the_say() -> None:
    credited_groups = draw([MIXED, DEAD], [REWARDS[0], RewardSpec(name="format", weight=0.0)], PARTS)
    assert advantage_shares(credited_groups) == {"correctness": 1.0, "format": 0.0}


def test_what_a_sum_makes_equal_the_parts_keep_apart() -> None:
    """The paper's point: better in both rewards is more than better in one, which the sum's deviation takes back."""
    better_in_both, better_in_one = group((1, 1), (0, 0)), group((1, 0), (0, 0))
    both, one = draw([better_in_both, better_in_one], REWARDS, SUM)
    assert both.of_completions == pytest.approx(one.of_completions, abs=1e-3)
    both, one = draw([better_in_both, better_in_one], REWARDS, PARTS)
    assert both.of_completions == pytest.approx([1.5 * value for value in one.of_completions])


def test_parts_that_cancel_exactly_are_dead() -> None:
    """Right without the form against the form alone: nothing is learnt where the two weigh the same."""
    traded = group((1, 0), (0, 1), (1, 0), (1, 0))
    assert not draw([traded], REWARDS, PARTS)[0].is_dead
    assert draw([traded], [RewardSpec(name="correctness", weight=0.5), REWARDS[1]], PARTS)[0].is_dead


def test_how_groups_are_cut_and_ordered_changes_nothing() -> None:
    other = group((1, 0), (0, None), (0, 1), (0, 0))
    credited_groups = draw([MIXED, DEAD, other], REWARDS, PARTS)
    again = draw([other, MIXED, DEAD], REWARDS, PARTS)
    assert [credited.of_completions for credited in again] == [
        credited_groups[index].of_completions for index in (2, 0, 1)
    ]


def test_a_step_without_differences_is_all_zeros() -> None:
    assert [credited.of_completions for credited in draw([DEAD, DEAD], REWARDS, PARTS)] == [(0.0,) * 4] * 2


# A KL in the reward

MEAN = UpdateSection(lr=1e-3, advantage="group_mean")
PAIR = group((1, None), (0, None), lengths=(2, 3))
COSTS: KlCosts = ((0.1, 0.3), (0.0, -0.2, 0.1))


def test_what_a_completion_cost_is_taken_off_its_reward() -> None:
    # 1 - 0.4 and 0 + 0.1: mean 0.35. Every token of a completion shares what is left.
    [credited] = compute_advantages([PAIR], [COSTS], REWARDS, advantage_of(MEAN))
    assert credited.advantages[0] == pytest.approx([0.25] * 2)
    assert credited.advantages[1] == pytest.approx([-0.25] * 3)
    assert credited.pulls == ({"correctness": 0.5, "format": 0.0}, {"correctness": -0.5, "format": 0.0})


def test_equal_rewards_are_not_dead_where_the_kl_tells_them_apart() -> None:
    [credited] = compute_advantages([group((1, None), (1, None))], [((0.5,), (0.0,))], REWARDS, advantage_of(MEAN))
    assert credited.advantages == ((-0.25,), (0.25,))


# Over the step: REINFORCE++

BATCH = UpdateSection(lr=1e-3, objective="reinforce_pp")
BASELINE = UpdateSection(lr=1e-3, objective="reinforce_pp_baseline")
LONG = group((1, None), (0, None), lengths=(1, 3))
ALL_RIGHT = group((1, None), (1, None), lengths=(2, 2))


def flat(credited_groups: Sequence[CreditedGroup]) -> list[float]:
    return [value for credited in credited_groups for row in credited.advantages for value in row]


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
    assert second.advantages == ((0.0, 0.0), (0.0, 0.0))


@pytest.mark.parametrize("settings", [BATCH, BASELINE], ids=["alone", "baseline"])
def test_each_token_is_charged_for_what_follows_it(settings: UpdateSection) -> None:
    """In NumPy: returns less the costs from each token on, then less their mean, over their deviation."""
    costs: list[KlCosts] = [COSTS, ((0.2,), (0.1, 0.1, -0.4)), ((0.0, 0.5), (0.0, 0.0))]
    scored = [PAIR, LONG, ALL_RIGHT]
    returns = []
    for one, cost in zip(scored, costs, strict=True):
        baseline = np.mean(one.rewards) if settings is BASELINE else 0
        for reward, row in zip(one.rewards, cost, strict=True):
            returns.append([reward - baseline - sum(row[start:]) for start in range(len(row))])
    values = np.concatenate(returns)
    expected = (values - values.mean()) / (values.std(ddof=1) + 1e-4)
    assert flat(compute_advantages(scored, costs, REWARDS, advantage_of(settings))) == pytest.approx(
        expected.tolist(), abs=1e-12
    )


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

"""All advantages of a step, by the sum of the rewards and by their parts, worked out by hand."""

from __future__ import annotations

import math

import pytest

from data.problem import Problem
from grpo.config import UpdateSection
from grpo.lessons import draw_lessons
from grpo.metrics import advantage_shares
from grpo.types import Completion, Group, Prompt, ScoredGroup
from rewards.spec import RewardSpec
from rewards.types import Outcome, Score

REWARDS = (RewardSpec(name="correctness"), RewardSpec(name="format", weight=0.5))
SUM = UpdateSection(lr=1e-3)
PARTS = UpdateSection(lr=1e-3, advantage_of="parts")


def group(*parts: tuple[float | None, float | None]) -> ScoredGroup:
    """A group from (correctness, format) of each completion."""
    scores = tuple(
        Score((right or 0.0) + 0.5 * (form or 0.0), {"correctness": right, "format": form}, Outcome.WRONG, None)
        for right, form in parts
    )
    prompt = Prompt(Problem("toy/train/0", "?", "1", "integer", "toy", 0), (3, 4))
    return ScoredGroup(Group(prompt, (Completion((5,), (-0.5,), "", "stop"),) * len(parts), 0, 0), scores)


MIXED = group((1, 1), (0, 1), (0, 0), (1, None))
DEAD = group((0, 1), (0, 1), (0, 1), (0, 1))


def test_by_parts_by_hand() -> None:
    # Both parts of the first group have the deviation s = sqrt(1/3) + 1e-4 (see test_advantages), so that their
    # weighted sums are 1/2 + 1/6, -1/2 + 1/6, -1/2 - 1/3 and 1/2, all over s. Squares: (16 + 4 + 25 + 9) / 36 = 3/2.
    # The four zeros of the dead group count: the deviation of all eight is sqrt(3/2 / 7) / s + 1e-4.
    scale = math.sqrt(1 / 3) + 1e-4
    deviation = math.sqrt(1.5 / 7) / scale + 1e-4
    first, second = draw_lessons([MIXED, DEAD], REWARDS, PARTS)
    expected = [value / scale / deviation for value in (2 / 3, -1 / 3, -5 / 6, 1 / 2)]
    assert first.advantages == pytest.approx(expected, abs=1e-12)
    assert expected[0] == pytest.approx(1.44, abs=1e-3)
    assert second.advantages == (0.0,) * 4
    assert (first.is_dead, second.is_dead) == (False, True)


def test_shares_by_parts_by_hand() -> None:
    # |A| is as 4 : 2 : 5 : 3, of which correctness decides 3/4, 3/4, 3/5 and all: (3 + 3/2 + 3 + 3) / 14 = 3/4.
    lessons = draw_lessons([MIXED, DEAD], REWARDS, PARTS)
    assert advantage_shares(lessons) == pytest.approx({"correctness": 3 / 4, "format": 1 / 4})


def test_by_the_sum_by_hand() -> None:
    # Rewards 1.5, 0.5, 0, 1: mean 3/4, squared distances (9 + 1 + 9 + 1) / 16 = 5/4, over 3 gives 5/12.
    scale = math.sqrt(5 / 12) + 1e-4
    first, second = draw_lessons([MIXED, DEAD], REWARDS, SUM)
    assert first.advantages == pytest.approx([0.75 / scale, -0.25 / scale, -0.75 / scale, 0.25 / scale], abs=1e-12)
    assert second.advantages == (0.0,) * 4
    # Correctness pulls with 1/2 and format with 1/4 everywhere.
    assert advantage_shares([first, second]) == pytest.approx({"correctness": 2 / 3, "format": 1 / 3})


def test_one_reward_alone_has_all_the_say() -> None:
    lessons = draw_lessons([MIXED, DEAD], [REWARDS[0], RewardSpec(name="format", weight=0.0)], PARTS)
    assert advantage_shares(lessons) == {"correctness": 1.0, "format": 0.0}


def test_what_a_sum_makes_equal_the_parts_keep_apart() -> None:
    """The paper's point: better in both rewards is more than better in one, which the sum's deviation takes back."""
    better_in_both, better_in_one = group((1, 1), (0, 0)), group((1, 0), (0, 0))
    both, one = draw_lessons([better_in_both, better_in_one], REWARDS, SUM)
    assert both.advantages == pytest.approx(one.advantages, abs=1e-3)
    both, one = draw_lessons([better_in_both, better_in_one], REWARDS, PARTS)
    assert both.advantages == pytest.approx([1.5 * value for value in one.advantages])


def test_parts_that_cancel_exactly_are_dead() -> None:
    """Right without the form against the form alone: nothing is learnt where the two weigh the same."""
    traded = group((1, 0), (0, 1), (1, 0), (1, 0))
    assert not draw_lessons([traded], REWARDS, PARTS)[0].is_dead
    assert draw_lessons([traded], [RewardSpec(name="correctness", weight=0.5), REWARDS[1]], PARTS)[0].is_dead


def test_how_groups_are_cut_and_ordered_changes_nothing() -> None:
    other = group((1, 0), (0, None), (0, 1), (0, 0))
    lessons = draw_lessons([MIXED, DEAD, other], REWARDS, PARTS)
    again = draw_lessons([other, MIXED, DEAD], REWARDS, PARTS)
    assert [lesson.advantages for lesson in again] == [lessons[index].advantages for index in (2, 0, 1)]


def test_a_step_without_differences_is_all_zeros() -> None:
    assert [lesson.advantages for lesson in draw_lessons([DEAD, DEAD], REWARDS, PARTS)] == [(0.0,) * 4] * 2

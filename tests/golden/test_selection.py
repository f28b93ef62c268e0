"""Which groups a batch is made of, and what divides its loss, worked out by hand."""

from __future__ import annotations

import math

import pytest
from groups import completion_of, prompt_of

from grpo.advantages.compute import compute_advantages
from grpo.batching.micro_batches import plan_batch
from grpo.recipe.sections import RolloutSection, UpdateSection, advantage_of
from grpo.records import CreditedGroup, Group, GroupSummary, ScoredGroup, Selection
from grpo.rollout.dynamic_sampling import choose_selection, select_living
from grpo.run.metrics import step_metrics
from rewards.records import Outcome, Score
from rewards.spec import RewardSpec

REWARDS = (
    RewardSpec(name="correctness"),
    RewardSpec(name="format", weight=0.5),
    RewardSpec(name="language", weight=0.0),
)
ABOVE_A_TENTH = math.nextafter(0.1, 1)


def group(name: str, *parts: tuple[float, float], language: float = 0.0, length: int = 2) -> GroupSummary:
    """A group from the parts (right, form) of each completion; only the first one's `language` is not 0."""
    rewards = [right + 0.5 * form for right, form in parts]
    languages = [language, *[0.0] * (len(parts) - 1)]
    scores = tuple(
        Score(reward, {"correctness": right, "format": form, "language": other}, Outcome.WRONG, None)
        for reward, (right, form), other in zip(rewards, parts, languages, strict=True)
    )
    prompt = prompt_of((3, 4))
    completions = (completion_of((5,) * length, -0.5),) * len(parts)
    return ScoredGroup(Group(prompt, completions, 0, 0), scores).summary(position=ord(name))


def fill(*groups: GroupSummary, max_rounds: int = 2, advantage: str = "group_std") -> Selection:
    rollout = RolloutSection(prompts_per_step=2, group_size=3, max_new_tokens=16, max_rounds=max_rounds)
    return choose_selection(rollout, advantage, REWARDS)(groups)  # type: ignore[arg-type]


def names(groups: tuple[GroupSummary, ...]) -> str:
    return "".join(chr(one.position) for one in groups)


def flat(name: str, reward: float = 0.1, *, length: int = 2) -> GroupSummary:
    return group(name, *[(reward, 0.0)] * 3, length=length)


def lively(name: str, *, length: int = 2) -> GroupSummary:
    return group(name, (1, 0), (0, 0), (0, 0), length=length)


DRAWN = (flat("a"), lively("b"), flat("c"), lively("d"), lively("e"), flat("f"), lively("g"))


def test_the_first_living_ones_are_kept_in_the_order_of_the_problems() -> None:
    drawn = fill(*DRAWN)
    assert (names(drawn.kept), names(drawn.surplus), names(drawn.dead)) == ("bd", "eg", "acf")
    assert names(drawn.groups) == "bdegacf"


def test_too_few_living_ones_are_all_there_are() -> None:
    drawn = fill(*DRAWN[:3])
    assert (names(drawn.kept), names(drawn.surplus), names(drawn.dead)) == ("b", "", "ac")
    lone = flat("a")
    assert fill(lone) == Selection((), (), (lone,))


def test_with_one_round_all_is_kept() -> None:
    assert fill(*DRAWN, max_rounds=1) == Selection(DRAWN)


@pytest.mark.parametrize("reward", [0.1, 0.7, 0.05, -0.35, 1e-300, 1e17 / 3, 0.0])
def test_equal_rewards_are_no_signal_however_they_add_up(reward: float) -> None:
    assert names(fill(flat("a", reward)).dead) == "a"


def test_the_mean_of_equal_rewards_may_be_another_number() -> None:
    """Or the test before this one would prove nothing."""
    assert sum([0.1] * 3) / 3 != 0.1


@pytest.mark.parametrize(
    "rewards",
    [(0.1, 0.1, ABOVE_A_TENTH), (0.0, 0.0, 5e-324), (1e-9, -1e-9, 0.0), (1e17, 1e17, 1e17 + 16)],
)
def test_the_smallest_difference_is_a_signal(rewards: tuple[float, ...]) -> None:
    assert names(fill(group("a", *((reward, 0.0) for reward in rewards))).kept) == "a"


def test_what_the_sum_makes_equal_is_alive_where_parts_teach() -> None:
    """Correctness and format outweigh each other in the reward; GDPO sees sqrt(3)/2 - sqrt(3)/4 and its like."""
    outweighed = group("a", (1, 0), (0.5, 1), (0.5, 1))
    assert outweighed.rewards == (1.0,) * 3
    assert names(fill(outweighed).dead) == "a"
    assert names(fill(outweighed, advantage="gdpo").kept) == "a"


def test_gdpo_asks_only_parts_that_weigh_something() -> None:
    idle = group("a", *[(0.1, 0.2)] * 3, language=1.0)
    assert names(fill(idle, advantage="gdpo").dead) == "a"
    assert names(fill(*DRAWN, advantage="gdpo").kept) == "bd"


def credited(groups: tuple[GroupSummary, ...], update: UpdateSection) -> list[CreditedGroup]:
    return compute_advantages(groups, {}, REWARDS, advantage_of(update))


@pytest.mark.parametrize(
    ("objective", "kept", "all_drawn"),
    # Living groups have three completions of 2, 3 and 5 tokens, dead ones three of 7; the batch has room for two.
    [("dapo", 3 * (2 + 3), 3 * (2 + 3 + 7)), ("grpo", 6.0, 9.0), ("dr_grpo", 6 * 16.0, 9 * 16.0)],
)
def test_what_is_left_out_divides_nothing(objective: str, kept: float, all_drawn: float) -> None:
    groups = (lively("a", length=2), flat("b", length=7), lively("c", length=3))
    update = UpdateSection(lr=1e-3, objective=objective)
    drawn = fill(*groups, lively("d", length=5))
    batch = plan_batch(credited(drawn.kept, update), update, 16)
    assert batch.denominator == kept
    assert sum(len(piece.completions) for pieces in batch.micro_batches for piece in pieces) == 6
    once = fill(*groups, max_rounds=1)
    assert plan_batch(credited(once.kept, update), update, 16).denominator == all_drawn


@pytest.mark.parametrize("advantage", ["group_std", "group_mean", "leave_one_out", "group_batch", "gdpo"])
def test_a_batch_of_nothing_is_a_batch(advantage: str) -> None:
    update = UpdateSection(lr=1e-3, advantage=advantage)  # type: ignore[arg-type]
    assert plan_batch(credited((), update), update, 16).micro_batches == ()


def test_the_deviation_of_a_batch_is_that_of_its_own_groups() -> None:
    update = UpdateSection(lr=1e-3, advantage="gdpo")
    [alone] = credited((DRAWN[1],), update)
    [filled] = credited(fill(*DRAWN[:3], advantage="gdpo").kept, update)
    [_, diluted, _] = credited(DRAWN[:3], update)
    assert filled.advantages == alone.advantages
    assert filled.advantages != diluted.advantages


def test_metrics_are_of_all_that_was_drawn() -> None:
    # Of 7 groups of 3, three are flat at 0.1 and four have a single 1: (0.9 + 4) / 21 is the mean of all.
    drawn = fill(*DRAWN)
    row = step_metrics(credited(drawn.kept, UpdateSection(lr=1e-3)), drawn.surplus, drawn.dead)
    assert row["reward/mean"] == pytest.approx(4.9 / 21)
    assert (row["group/num_drawn"], row["group/num_living"]) == (7.0, 4.0)
    assert row["group/dead_frac"] == pytest.approx(3 / 7)
    assert row["outcome/wrong_frac"] == 1.0
    assert row["advantage/correctness_frac"] == 1.0


def test_metrics_of_a_step_in_which_nothing_lived() -> None:
    drawn = fill(flat("a"), flat("b", 0.3))
    row = step_metrics([], drawn.surplus, drawn.dead)
    assert row["reward/mean"] == pytest.approx(0.2)
    assert (row["group/num_drawn"], row["group/num_living"], row["group/dead_frac"]) == (2.0, 0.0, 1.0)


def test_taking_is_the_same_however_often_it_is_asked() -> None:
    """A round more changes what is kept only where the batch was not full."""
    asked = [fill(*DRAWN[:num]).kept for num in range(len(DRAWN) + 1)]
    assert [names(kept) for kept in asked] == ["", "", "b", "b", "bd", "bd", "bd", "bd"]
    assert select_living(DRAWN, 2, lambda one: True).kept == DRAWN[:2]

"""Weights, denominators and micro-batches of small batches that can be worked out on paper."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from groups import batches_of, completion_of, credit_of, floats, prompt_of

from grpo.batching.micro_batches import denominator, plan_batch
from grpo.recipe.sections import UpdateSection
from grpo.records import Batch, Branch, Completion, Group, KlCosts, PromptTree, ScoredGroup
from rewards.records import Outcome, Score
from rewards.spec import RewardSpec

MAX_NEW_TOKENS = 10
REWARDS = (RewardSpec(name="correctness"),)
NUMBERS = count(100)
"""Fresh token ids, so that every completion can be told from every other."""


def scored_group(prompt_length: int, *rewarded: tuple[int, float]) -> ScoredGroup:
    """A group from (length, reward) of each completion."""
    prompt = prompt_of([next(NUMBERS) for _ in range(prompt_length)])
    completions = []
    for length, _ in rewarded:
        ids = tuple(next(NUMBERS) for _ in range(length))
        completions.append(completion_of(ids, [-0.01 * one for one in range(length)]))
    scores = tuple(Score(reward, {"correctness": reward}, Outcome.WRONG, None) for _, reward in rewarded)
    return ScoredGroup(Group(prompt, tuple(completions), version=0, position=0), scores)


def two_groups() -> list[ScoredGroup]:
    """Seven completion tokens in the first group, nine in the second, three of one reward in the third."""
    return [
        scored_group(3, (2, 1.0), (5, 0.0)),
        scored_group(4, (1, 0.0), (4, 0.0), (4, 1.5)),
        scored_group(2, (6, 0.5), (6, 0.5)),
    ]


def settings(**changes: object) -> UpdateSection:
    return UpdateSection(lr=1e-3, **({"tokens_per_micro_batch": 64, "advantage": "group_mean"} | changes))  # type: ignore[arg-type]


def batch_of(groups: list[ScoredGroup], update: UpdateSection, costs: Sequence[KlCosts] = ()) -> Batch:
    [batch] = batches_of(groups, REWARDS, update, MAX_NEW_TOKENS, costs=costs)
    return batch


def trees_of(batch: Batch) -> list[PromptTree]:
    return [tree for trees in batch.micro_batches for tree in trees]


Ids = tuple[int, ...]


def ids_of(completion: Completion | Branch) -> Ids:
    return tuple(completion.token_ids.tolist())


def advantages_of(batch: Batch) -> dict[Ids, float]:
    """One of each completion's, all of whose tokens share it."""
    assert all(len(one.advantages) == len(ids) for ids, one in branches_of(batch).items())
    assert all(len(set(one.advantages.tolist())) == 1 for one in branches_of(batch).values())
    return {ids: float(one.advantages[0]) for ids, one in branches_of(batch).items()}


def branches_of(batch: Batch) -> dict[Ids, Branch]:
    """By token ids; every completion may be there once only."""
    branches = [branch for tree in trees_of(batch) for branch in tree.branches]
    by_ids = {ids_of(branch): branch for branch in branches}
    assert len(by_ids) == len(branches)
    return by_ids


@pytest.mark.parametrize(
    ("normalise", "expected", "weights"),
    [
        # All 2 + 5 + 1 + 4 + 4 + 6 + 6 = 28 tokens, the 12 of the dead group too.
        ("token", 28.0, [1, 1, 1, 1, 1]),
        # Seven completions, each a mean over its own tokens.
        ("sequence", 7.0, [1 / 2, 1 / 5, 1 / 1, 1 / 4, 1 / 4]),
        # The same seven, each a sum over its own tokens.
        ("sequence_sum", 7.0, [1, 1, 1, 1, 1]),
        # Seven completions of ten tokens allowed.
        ("constant", 70.0, [1, 1, 1, 1, 1]),
    ],
)
def test_weights_and_denominator(normalise: str, expected: float, weights: list[float]) -> None:
    groups = two_groups()
    batch = batch_of(groups, settings(normalise=normalise))
    assert batch.denominator == expected
    branches = branches_of(batch)
    alive = [one for group in groups[:2] for one in group.group.completions]
    assert branches.keys() == {ids_of(one) for one in alive}
    assert [branches[ids_of(one)].weight for one in alive] == pytest.approx(weights, abs=1e-12)
    # Rewards 1, 0 have a mean of 0.5; 0, 0, 1.5 one of 0.5 too.
    assert [advantages_of(batch)[ids_of(one)] for one in alive] == [0.5, -0.5, -0.5, -0.5, 1.0]
    assert all(np.array_equal(branches[ids_of(one)].sampler_logps, one.sampler_logps) for one in alive)


def test_mini_batches_share_the_groups_out() -> None:
    groups = two_groups()
    first, second = batches_of(groups, REWARDS, settings(mini_batches=2), MAX_NEW_TOKENS)
    # Groups 0 and 2, which is dead, have 7 + 12 tokens; group 1 has 9.
    assert (first.denominator, second.denominator) == (19.0, 9.0)
    assert branches_of(first).keys() == {ids_of(one) for one in groups[0].group.completions}
    assert branches_of(second).keys() == {ids_of(one) for one in groups[1].group.completions}


def test_the_deviation_is_taken_inside_the_group() -> None:
    batch = batch_of(two_groups(), settings(advantage="group_std"))
    found = sorted(advantages_of(batch).values())
    # 1, 0: deviation sqrt(0.5). 0, 0, 1.5: distances -0.5 -0.5 1, variance (0.25 + 0.25 + 1) / 2 = 0.75.
    first, second = 0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.75) + 1e-4)
    assert found == pytest.approx(sorted([first, -first, -second, -second, 2 * second]), abs=1e-7)


def test_the_denominator_alone() -> None:
    assert denominator([3, 5], "token", 100) == 8.0
    assert denominator([3, 5], "sequence", 100) == 2.0
    assert denominator([3, 5], "sequence_sum", 100) == 2.0
    assert denominator([3, 5], "constant", 100) == 200.0
    assert denominator([], "token", 100) == 0.0


def test_only_dead_groups_leave_nothing_to_do_but_count() -> None:
    batch = batch_of([scored_group(3, (4, 0.1), (2, 0.1), (3, 0.1))], settings())
    assert batch.micro_batches == ()
    assert not batch.has_signal
    assert batch.denominator == 9.0


def test_a_completion_of_exactly_the_mean_costs_nothing_and_counts() -> None:
    group = scored_group(3, (4, 0.0), (2, 0.5), (3, 1.0))
    batch = batch_of([group], settings())
    kept = [ids_of(group.group.completions[0]), ids_of(group.group.completions[2])]
    assert sorted(branches_of(batch)) == sorted(kept)
    assert batch.denominator == 9.0


@pytest.mark.parametrize("change", [{"kl_weight": 0.1}, {"entropy_weight": 0.01}])
def test_with_a_term_beside_the_objective_the_dead_stay(change: dict[str, float]) -> None:
    groups = two_groups()
    batch = batch_of(groups, settings(**change))
    advantages = advantages_of(batch)
    assert advantages.keys() == {ids_of(one) for group in groups for one in group.group.completions}
    assert [advantages[ids_of(one)] for one in groups[2].group.completions] == [0.0, 0.0]
    assert batch.denominator == 28.0


def test_a_kl_in_the_reward_keeps_no_dead_group_alive() -> None:
    batch = batch_of(two_groups(), settings(kl_weight=0.1, kl_in="reward"))
    assert len(branches_of(batch)) == 5
    assert batch.denominator == 28.0


def test_the_objective_normalises_where_the_recipe_does_not() -> None:
    # dapo counts tokens, grpo completions, dr_grpo completions of ten tokens.
    groups = two_groups()
    found = {name: batch_of(groups, settings(objective=name)) for name in ("dapo", "grpo", "dr_grpo")}
    assert {name: batch.denominator for name, batch in found.items()} == {"dapo": 28.0, "grpo": 7.0, "dr_grpo": 70.0}
    weights = {name: sorted(one.weight for one in branches_of(batch).values()) for name, batch in found.items()}
    assert weights == {"dapo": [1] * 5, "grpo": [1 / 5, 1 / 4, 1 / 4, 1 / 2, 1], "dr_grpo": [1] * 5}


def test_each_token_keeps_its_own_advantage() -> None:
    """A KL in the reward, charged from each token on: 1/2 - 0.25 at first, then 1/2, and -1/2 of the other one. The
    mean of the three is 1/12, the squares 4/144 + 25/144 + 49/144, over 2 gives 78/288."""
    group = scored_group(3, (2, 1.0), (1, 0.0))
    update = settings(advantage="group_batch", kl_weight=0.1, kl_in="reward")
    branches = branches_of(batch_of([group], update, [(floats(0.25, 0.0), floats(0.0))]))
    scale = math.sqrt(78 / 288) + 1e-4
    found = [branches[ids_of(one)].advantages.tolist() for one in group.group.completions]
    assert found[0] == pytest.approx([2 / 12 / scale, 5 / 12 / scale], abs=1e-6)
    assert found[1] == pytest.approx([-7 / 12 / scale], abs=1e-6)


def cut_off(group: ScoredGroup, *numbers: int) -> ScoredGroup:
    """The same group with some completions cut off by the length limit."""
    completions = tuple(
        replace(one, finish="length") if number in numbers else one
        for number, one in enumerate(group.group.completions)
    )
    return replace(group, group=replace(group.group, completions=completions))


@pytest.mark.parametrize(("normalise", "expected"), [("token", 2 + 4), ("sequence", 2.0), ("constant", 20.0)])
def test_truncated_completions_may_be_left_out(normalise: str, expected: float) -> None:
    """The second of three neither pulls nor divides, and is still what the others are compared with."""
    group = cut_off(scored_group(3, (2, 1.0), (5, 0.0), (4, 0.5)), 1)
    batch = batch_of([group], settings(normalise=normalise, truncated="leave_out", kl_weight=0.1))
    first, _, third = group.group.completions
    assert batch.denominator == expected
    # 1, 0 and 1/2 have a mean of 1/2.
    assert advantages_of(batch) == {ids_of(first): 0.5, ids_of(third): 0.0}


def test_truncated_completions_are_learnt_from_unless_the_recipe_says_otherwise() -> None:
    group = cut_off(scored_group(3, (2, 1.0), (5, 0.0)), 1)
    assert len(branches_of(batch_of([group], settings()))) == 2


def test_a_step_of_truncated_completions_alone_has_nothing_to_learn() -> None:
    group = cut_off(scored_group(3, (2, 1.0), (5, 0.0)), 0, 1)
    batch = batch_of([group], settings(truncated="leave_out"))
    assert (batch.micro_batches, batch.has_signal) == ((), False)


def test_a_tree_over_the_budget_is_cut_between_branches() -> None:
    # Prompt 4, room for 20 - 4 = 16: completions 7 and 8 fit together (15), then 6 and 9 (15), then 5 alone.
    group = scored_group(4, (7, 1.0), (8, 0.0), (6, 2.0), (9, 3.0), (5, 5.0))
    batch = batch_of([group], settings(tokens_per_micro_batch=20))
    pieces = trees_of(batch)
    assert Counter(tuple(piece.prompt_ids.tolist()) for piece in pieces) == {
        tuple(group.group.prompt.token_ids.tolist()): 3
    }
    lengths = sorted([len(branch.token_ids) for branch in piece.branches] for piece in pieces)
    assert lengths == [[5], [6, 9], [7, 8]]
    advantages = advantages_of(batch)
    assert advantages.keys() == {ids_of(one) for one in group.group.completions}
    # The mean of 1 0 2 3 5 is 2.2 of the whole group, not of a piece.
    found = [advantages[ids_of(one)] for one in group.group.completions]
    assert found == pytest.approx([-1.2, -2.2, -0.2, 0.8, 2.8], abs=1e-6)
    assert batch.denominator == 35.0


SHAPES = [(3, 5, 13, 1), (6, 2, 2, 2, 10), (1, 15, 15), (4, 12, 3, 3, 3, 3), (2, 1, 1)]


@pytest.mark.parametrize("budget", [16, 17, 23, 40, 100, 4096])
def test_micro_batches_keep_to_the_budget_and_lose_nothing(budget: int) -> None:
    groups = [scored_group(prompt, *((length, index) for index, length in enumerate(rest))) for prompt, *rest in SHAPES]
    update = settings(tokens_per_micro_batch=budget, kl_weight=1.0)
    batch = batch_of(groups, update)
    assert all(sum(tree.num_tokens for tree in trees) <= budget for trees in batch.micro_batches)
    prompt_of = {ids_of(one): group.group.prompt.token_ids for group in groups for one in group.group.completions}
    found = {ids_of(branch): tree.prompt_ids for tree in trees_of(batch) for branch in tree.branches}
    assert found.keys() == prompt_of.keys()
    assert all(np.array_equal(prompt, prompt_of[ids]) for ids, prompt in found.items())
    assert len(branches_of(batch)) == sum(len(shape) - 1 for shape in SHAPES)
    assert batch.denominator == sum(sum(rest) for _, *rest in SHAPES)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("budget", [16, 17, 23, 40, 100, 4096])
def test_all_ranks_plan_the_same(budget: int, num_ranks: int) -> None:
    groups = [scored_group(prompt, *((length, index) for index, length in enumerate(rest))) for prompt, *rest in SHAPES]
    update = settings(tokens_per_micro_batch=budget, kl_weight=1.0)
    credited = credit_of(groups, REWARDS, update)
    plan = plan_batch(credited, update, MAX_NEW_TOKENS, num_ranks)
    assert len(plan.micro_batches) % num_ranks == 0
    assert plan_batch(credited, update, MAX_NEW_TOKENS, num_ranks) == plan

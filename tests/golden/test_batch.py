"""Weights, denominators and micro-batches of small batches that can be worked out on paper."""

from __future__ import annotations

import math
from collections import Counter
from itertools import count, product

import pytest

from data.problem import Problem
from grpo.advantages.compute import compute_advantages
from grpo.batching.micro_batches import balance, cost, denominator, make_batch, make_batches
from grpo.recipe.sections import UpdateSection, advantage_of
from grpo.records import Batch, Branch, Completion, Group, Prompt, PromptTree, ScoredGroup
from rewards.records import Outcome, Score
from rewards.spec import RewardSpec

MAX_NEW_TOKENS = 10
REWARDS = (RewardSpec(name="correctness"),)
NUMBERS = count(100)
"""Fresh token ids, so that every completion can be told from every other."""


def scored_group(prompt_length: int, *rewarded: tuple[int, float]) -> ScoredGroup:
    """A group from (length, reward) of each completion."""
    problem = Problem("toy/train/0", "?", "1", "integer", "toy", 0)
    prompt = Prompt(problem, tuple(next(NUMBERS) for _ in range(prompt_length)))
    completions = []
    for length, _ in rewarded:
        ids = tuple(next(NUMBERS) for _ in range(length))
        completions.append(Completion(ids, tuple(-0.01 * one for one in range(length)), "", "stop"))
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


def batch_of(groups: list[ScoredGroup], update: UpdateSection, num_ranks: int = 1) -> Batch:
    costs = [((),) * len(group.scores) for group in groups]
    return make_batch(
        compute_advantages(groups, costs, REWARDS, advantage_of(update)), update, MAX_NEW_TOKENS, num_ranks
    )


def trees_of(batch: Batch) -> list[PromptTree]:
    return [tree for trees in batch.micro_batches for tree in trees]


def advantages_of(batch: Batch) -> dict[tuple[int, ...], float]:
    """One of each completion's, all of whose tokens share it."""
    assert all(len(one.advantages) == len(ids) for ids, one in branches_of(batch).items())
    assert all(len(set(one.advantages)) == 1 for one in branches_of(batch).values())
    return {ids: one.advantages[0] for ids, one in branches_of(batch).items()}


def branches_of(batch: Batch) -> dict[tuple[int, ...], Branch]:
    """By token ids; every completion may be there once only."""
    branches = [branch for tree in trees_of(batch) for branch in tree.branches]
    by_ids = {branch.token_ids: branch for branch in branches}
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
    assert branches.keys() == {one.token_ids for one in alive}
    assert [branches[one.token_ids].weight for one in alive] == pytest.approx(weights, abs=1e-12)
    # Rewards 1, 0 have a mean of 0.5; 0, 0, 1.5 one of 0.5 too.
    assert [advantages_of(batch)[one.token_ids] for one in alive] == [0.5, -0.5, -0.5, -0.5, 1.0]
    assert all(branches[one.token_ids].sampler_logps == one.sampler_logps for one in alive)


def test_mini_batches_share_the_groups_out() -> None:
    groups = two_groups()
    update = settings(mini_batches=2)
    costs = [((),) * len(group.scores) for group in groups]
    first, second = make_batches(
        compute_advantages(groups, costs, REWARDS, advantage_of(update)), update, MAX_NEW_TOKENS, num_ranks=1
    )
    # Groups 0 and 2, which is dead, have 7 + 12 tokens; group 1 has 9.
    assert (first.denominator, second.denominator) == (19.0, 9.0)
    assert branches_of(first).keys() == {one.token_ids for one in groups[0].group.completions}
    assert branches_of(second).keys() == {one.token_ids for one in groups[1].group.completions}


def test_the_deviation_is_taken_inside_the_group() -> None:
    batch = batch_of(two_groups(), settings(advantage="group_std"))
    found = sorted(advantages_of(batch).values())
    # 1, 0: deviation sqrt(0.5). 0, 0, 1.5: distances -0.5 -0.5 1, variance (0.25 + 0.25 + 1) / 2 = 0.75.
    first, second = 0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.75) + 1e-4)
    assert found == pytest.approx(sorted([first, -first, -second, -second, 2 * second]), abs=1e-12)


def test_the_denominator_alone() -> None:
    assert denominator([3, 5], "token", 100) == 8.0
    assert denominator([3, 5], "sequence", 100) == 2.0
    assert denominator([3, 5], "sequence_sum", 100) == 2.0
    assert denominator([3, 5], "constant", 100) == 200.0
    assert denominator([], "token", 100) == 0.0


def test_only_dead_groups_leave_nothing_to_do_but_count() -> None:
    batch = batch_of([scored_group(3, (4, 0.1), (2, 0.1), (3, 0.1))], settings())
    assert batch.micro_batches == ()
    assert batch.denominator == 9.0


def test_a_completion_of_exactly_the_mean_costs_nothing_and_counts() -> None:
    group = scored_group(3, (4, 0.0), (2, 0.5), (3, 1.0))
    batch = batch_of([group], settings())
    kept = [group.group.completions[0].token_ids, group.group.completions[2].token_ids]
    assert sorted(branches_of(batch)) == sorted(kept)
    assert batch.denominator == 9.0


@pytest.mark.parametrize("change", [{"kl_weight": 0.1}, {"entropy_weight": 0.01}])
def test_with_a_term_beside_the_objective_the_dead_stay(change: dict[str, float]) -> None:
    groups = two_groups()
    batch = batch_of(groups, settings(**change))
    advantages = advantages_of(batch)
    assert advantages.keys() == {one.token_ids for group in groups for one in group.group.completions}
    assert [advantages[one.token_ids] for one in groups[2].group.completions] == [0.0, 0.0]
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
    """A KL in the reward, charged from each token on: 1 - 0.25 at first, then 1, against a mean of 0.375."""
    group = scored_group(3, (2, 1.0), (1, 0.0))
    update = settings(advantage="group_batch")
    credited_groups = compute_advantages([group], [((0.25, 0.0), (0.0,))], REWARDS, advantage_of(update))
    branches = branches_of(make_batch(credited_groups, update, MAX_NEW_TOKENS))
    assert [branches[one.token_ids].advantages for one in group.group.completions] == list(
        credited_groups[0].advantages
    )
    assert len(set(credited_groups[0].advantages[0])) == 2


def test_a_tree_over_the_budget_is_cut_between_branches() -> None:
    # Prompt 4, room for 20 - 4 = 16: completions 7 and 8 fit together (15), then 6 and 9 (15), then 5 alone.
    group = scored_group(4, (7, 1.0), (8, 0.0), (6, 2.0), (9, 3.0), (5, 5.0))
    batch = batch_of([group], settings(tokens_per_micro_batch=20))
    pieces = trees_of(batch)
    assert Counter(piece.prompt_ids for piece in pieces) == {group.group.prompt.token_ids: 3}
    lengths = sorted([len(branch.token_ids) for branch in piece.branches] for piece in pieces)
    assert lengths == [[5], [6, 9], [7, 8]]
    advantages = advantages_of(batch)
    assert advantages.keys() == {one.token_ids for one in group.group.completions}
    # The mean of 1 0 2 3 5 is 2.2 of the whole group, not of a piece.
    found = [advantages[one.token_ids] for one in group.group.completions]
    assert found == pytest.approx([-1.2, -2.2, -0.2, 0.8, 2.8], abs=1e-12)
    assert batch.denominator == 35.0


SHAPES = [(3, 5, 13, 1), (6, 2, 2, 2, 10), (1, 15, 15), (4, 12, 3, 3, 3, 3), (2, 1, 1)]


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("budget", [16, 17, 23, 40, 100, 4096])
def test_micro_batches_keep_to_the_budget_and_lose_nothing(budget: int, num_ranks: int) -> None:
    groups = [scored_group(prompt, *((length, index) for index, length in enumerate(rest))) for prompt, *rest in SHAPES]
    update = settings(tokens_per_micro_batch=budget, kl_weight=1.0)
    batch = batch_of(groups, update, num_ranks)
    assert len(batch.micro_batches) % num_ranks == 0
    assert all(sum(tree.num_tokens for tree in trees) <= budget for trees in batch.micro_batches)
    prompt_of = {one.token_ids: group.group.prompt.token_ids for group in groups for one in group.group.completions}
    found = {branch.token_ids: tree.prompt_ids for tree in trees_of(batch) for branch in tree.branches}
    assert found == prompt_of
    assert len(branches_of(batch)) == sum(len(shape) - 1 for shape in SHAPES)
    assert batch.denominator == sum(sum(rest) for _, *rest in SHAPES)
    assert batch_of(groups, update, num_ranks) == batch


def tree_of(prompt_length: int, *lengths: int) -> PromptTree:
    return PromptTree(
        (7,) * prompt_length, tuple(Branch((8,) * one, (0.0,) * one, (1.0,) * one, 1.0) for one in lengths)
    )


def test_a_trees_size_counts_its_prompt_once() -> None:
    tree = tree_of(2, 3, 1)
    assert tree.num_tokens == 2 + 3 + 1
    # In the prompt 1 + 2 pairs; a token of a branch sees the prompt's two, and 1, 2 or 3 of its own.
    assert tree.num_pairs == 3 + (2 + 1) + (2 + 2) + (2 + 3) + (2 + 1)
    assert cost(tree) == 6 + 18 / 8192


def sizes_of(filled: list[tuple[PromptTree, ...]]) -> list[list[int]]:
    return [[tree.num_tokens for tree in trees] for trees in filled]


@pytest.mark.parametrize(
    ("num_ranks", "expected"),
    [
        # 32 tokens might fit two micro-batches of 16, but not these: 9 + 5, 8 + 6, and no room for 4. Of three, each
        # tree goes to the emptiest: 9, 8 and 6 have one each, 5 joins the 6, 4 joins the 8.
        (1, [[9], [8, 4], [6, 5]]),
        (2, [[9], [8], [6], [5, 4]]),
        (5, [[9], [8], [6], [5], [4]]),
        (6, [[9], [8], [6], [5], [4], []]),
    ],
)
def test_the_costliest_first_to_the_emptiest(num_ranks: int, expected: list[list[int]]) -> None:
    trees = [tree_of(1, size - 1) for size in (4, 9, 5, 8, 6)]
    assert sizes_of(balance(trees, 16, num_ranks)) == expected


def test_pairs_are_work_too() -> None:
    """4000 tokens in one row cost 4977, as they have 8.002 million pairs; four rows of 1000 cost 1061 each: it is the
    latter that a sixth row joins, though there are as many tokens on either side."""
    trees = [tree_of(1, size - 1) for size in (900, 1000, 1000, 4000, 1000, 1000)]
    assert sizes_of(balance(trees, 8000, 2)) == [[4000], [1000, 1000, 1000, 1000, 900]]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_work_is_shared_out_almost_evenly(num_ranks: int) -> None:
    """The fullest is as full as Graham proved of his rule, against the best of all ways; the emptiest is not far."""
    trees = [tree_of(1, size) for size in (911, 3022, 747, 1501, 2350, 60, 1780, 1203)]
    filled = balance(trees, 100_000, num_ranks)
    loads = [sum(map(cost, trees)) for trees in filled]
    best = min(
        max(
            sum(cost(tree) for tree, chosen in zip(trees, chosens, strict=True) if chosen == rank)
            for rank in range(num_ranks)
        )
        for chosens in product(range(num_ranks), repeat=len(trees))
    )
    assert best <= max(loads) <= best * (4 / 3 - 1 / (3 * num_ranks))
    assert max(loads) - min(loads) < 0.15 * max(loads)


def test_nothing_to_share_out() -> None:
    assert balance([], 16, 4) == []


def test_order_decides_nothing_but_between_equals() -> None:
    trees = [tree_of(1, size) for size in (911, 3022, 747, 1501, 2350)]
    assert balance(trees, 4096, 2) == balance(trees[::-1], 4096, 2)

"""Weights, denominators and micro-batches of small batches that can be worked out on paper."""

from __future__ import annotations

import math
from collections import Counter
from itertools import count

import pytest

from data.problem import Problem
from grpo.batch import denominator, make_batch
from grpo.config import UpdateSection
from grpo.lessons import draw_lessons
from grpo.types import Batch, Branch, Completion, Group, Prompt, PromptTree, ScoredGroup
from rewards.spec import RewardSpec
from rewards.types import Outcome, Score

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
    return UpdateSection(lr=1e-3, **({"tokens_per_micro_batch": 64, "advantage_scale": "none"} | changes))  # type: ignore[arg-type]


def batch_of(groups: list[ScoredGroup], update: UpdateSection) -> Batch:
    return make_batch(draw_lessons(groups, REWARDS, update), update, MAX_NEW_TOKENS)


def trees_of(batch: Batch) -> list[PromptTree]:
    return [tree for trees in batch.micro_batches for tree in trees]


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
    assert [branches[one.token_ids].advantage for one in alive] == [0.5, -0.5, -0.5, -0.5, 1.0]
    assert all(branches[one.token_ids].sampler_logps == one.sampler_logps for one in alive)


def test_the_deviation_is_taken_inside_the_group() -> None:
    batch = batch_of(two_groups(), settings(advantage_scale="std"))
    found = sorted(branch.advantage for branch in branches_of(batch).values())
    # 1, 0: deviation sqrt(0.5). 0, 0, 1.5: distances -0.5 -0.5 1, variance (0.25 + 0.25 + 1) / 2 = 0.75.
    first, second = 0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.75) + 1e-4)
    assert found == pytest.approx(sorted([first, -first, -second, -second, 2 * second]), abs=1e-12)


def test_the_denominator_alone() -> None:
    assert denominator([3, 5], "token", 100) == 8.0
    assert denominator([3, 5], "sequence", 100) == 2.0
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


def test_with_a_kl_term_the_dead_stay() -> None:
    groups = two_groups()
    batch = batch_of(groups, settings(kl_weight=0.1))
    branches = branches_of(batch)
    assert branches.keys() == {one.token_ids for group in groups for one in group.group.completions}
    assert [branches[one.token_ids].advantage for one in groups[2].group.completions] == [0.0, 0.0]
    assert batch.denominator == 28.0


def test_a_tree_over_the_budget_is_cut_between_branches() -> None:
    # Prompt 4, room for 20 - 4 = 16: completions 7 and 8 fit together (15), then 6 and 9 (15), then 5 alone.
    group = scored_group(4, (7, 1.0), (8, 0.0), (6, 2.0), (9, 3.0), (5, 5.0))
    batch = batch_of([group], settings(tokens_per_micro_batch=20))
    pieces = trees_of(batch)
    assert Counter(piece.prompt_ids for piece in pieces) == {group.group.prompt.token_ids: 3}
    lengths = sorted([len(branch.token_ids) for branch in piece.branches] for piece in pieces)
    assert lengths == [[5], [6, 9], [7, 8]]
    branches = branches_of(batch)
    assert branches.keys() == {one.token_ids for one in group.group.completions}
    # The mean of 1 0 2 3 5 is 2.2 of the whole group, not of a piece.
    found = [branches[one.token_ids].advantage for one in group.group.completions]
    assert found == pytest.approx([-1.2, -2.2, -0.2, 0.8, 2.8], abs=1e-12)
    assert batch.denominator == 35.0


@pytest.mark.parametrize("budget", [16, 17, 23, 40, 100, 4096])
def test_micro_batches_keep_to_the_budget_and_lose_nothing(budget: int) -> None:
    shapes = [(3, 5, 13, 1), (6, 2, 2, 2, 10), (1, 15, 15), (4, 12, 3, 3, 3, 3), (2, 1, 1)]
    groups = [scored_group(prompt, *((length, index) for index, length in enumerate(rest))) for prompt, *rest in shapes]
    batch = batch_of(groups, settings(tokens_per_micro_batch=budget, kl_weight=1.0))
    for trees in batch.micro_batches:
        assert trees
        assert sum(tree.num_tokens for tree in trees) <= budget
    prompt_of = {one.token_ids: group.group.prompt.token_ids for group in groups for one in group.group.completions}
    found = {branch.token_ids: tree.prompt_ids for tree in trees_of(batch) for branch in tree.branches}
    assert found == prompt_of
    assert len(branches_of(batch)) == sum(len(shape) - 1 for shape in shapes)
    assert batch.denominator == sum(sum(rest) for _, *rest in shapes)


def test_a_trees_size_counts_its_prompt_once() -> None:
    branch = Branch((1, 2, 3), (0.0, 0.0, 0.0), 1.0, 1.0)
    assert PromptTree((7, 8), (branch, branch)).num_tokens == 2 + 3 + 3


def test_small_trees_share_a_micro_batch() -> None:
    # Trees of 9, 8, 6, 5 and 4 tokens into bins of 16, largest first: 9 + 6, 8 + 5, 4.
    groups = [scored_group(1, (size - 2, 1.0), (1, 0.0)) for size in (4, 9, 5, 8, 6)]
    batch = batch_of(groups, settings(tokens_per_micro_batch=16))
    assert [[tree.num_tokens for tree in trees] for trees in batch.micro_batches] == [[9, 6], [8, 5], [4]]

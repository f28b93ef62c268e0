"""The rollouts that every side learns from: drawn from a seed, or real prompts with completions of a real engine."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.problem import Problem
from grpo.advantages.compute import compute_advantages
from grpo.recipe.sections import UpdateSection, advantage_of
from grpo.records import Completion, CreditedGroup, Group, Prompt, ScoredGroup
from rewards.records import Outcome, Score
from rewards.spec import RewardSpec

SAMPLER_LOGP = -1.0
"""Of tokens that no engine wrote."""
_REWARD = "bench:fixed"


@dataclass(frozen=True)
class FixedGroup:
    """One prompt with its completions and their rewards, which are not all alike."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    sampler_logps: tuple[tuple[float, ...], ...]
    rewards: tuple[float, ...]


def synthetic_groups(
    prompt_lengths: Sequence[int], completion_lengths: Sequence[int], group_size: int, vocabulary: int, seed: int = 0
) -> list[FixedGroup]:
    """Random tokens; one completion length for each of all completions, group by group."""
    rng = random.Random(seed)
    prompts = [_tokens(length, vocabulary, rng) for length in prompt_lengths]
    return complete(prompts, completion_lengths, group_size, vocabulary, seed)


def complete(
    prompts: Sequence[tuple[int, ...]],
    lengths: Sequence[int],
    group_size: int,
    vocabulary: int,
    seed: int = 0,
) -> list[FixedGroup]:
    """Completions of random tokens for prompts that are given."""
    rng = random.Random(f"completions {seed}")
    groups = []
    for number, prompt in enumerate(prompts):
        here = lengths[number * group_size : (number + 1) * group_size]
        completions = tuple(_tokens(length, vocabulary, rng) for length in here)
        logps = tuple((SAMPLER_LOGP,) * length for length in here)
        groups.append(FixedGroup(prompt, completions, logps, draw_rewards(group_size, rng)))
    return groups


def spread_lengths(mean: int, spread: float, num: int, seed: int) -> list[int]:
    """`num` lengths, even from mean (1 - spread) to mean (1 + spread), in random order: the mean is always `mean`."""
    places = [(2 * index + 1) / num - 1 for index in range(num)]
    lengths = [max(1, math.floor(mean * (1 + spread * place) + 0.5)) for place in places]
    random.Random(f"{mean} {seed}").shuffle(lengths)
    return lengths


def draw_rewards(num: int, rng: random.Random) -> tuple[float, ...]:
    """0 or 1 each, and both are there."""
    rewards = [1.0, 0.0, *(float(rng.random() < 0.5) for _ in range(num - 2))]
    rng.shuffle(rewards)
    return tuple(rewards)


def credited_groups(groups: Sequence[FixedGroup], settings: UpdateSection) -> list[CreditedGroup]:
    """What the groups teach, as in a run; no KL is in their rewards."""
    scored = [_scored(group, number) for number, group in enumerate(groups)]
    costs = [((),) * len(group.rewards) for group in groups]
    return compute_advantages(scored, costs, [RewardSpec(name=_REWARD)], advantage_of(settings))


def num_tokens(groups: Sequence[FixedGroup]) -> int:
    """Completion tokens of all groups."""
    return sum(len(ids) for group in groups for ids in group.completions)


def longest(groups: Sequence[FixedGroup]) -> tuple[int, int]:
    """Tokens of the longest prompt and of the longest completion."""
    return max(len(group.prompt) for group in groups), max(len(ids) for group in groups for ids in group.completions)


def _scored(group: FixedGroup, number: int) -> ScoredGroup:
    prompt = Prompt(Problem(f"bench/{number}", "", "", "exact", "bench", row=number), group.prompt)
    completions = tuple(
        Completion(np.array(ids, np.int32), np.array(logps, np.float32), "", "length")
        for ids, logps in zip(group.completions, group.sampler_logps, strict=True)
    )
    scores = tuple(Score(reward, {_REWARD: reward}, Outcome.WRONG, None) for reward in group.rewards)
    return ScoredGroup(Group(prompt, completions, version=0, position=number), scores)


def _tokens(length: int, vocabulary: int, rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.randrange(vocabulary) for _ in range(length))

"""One frozen record per stage of the loop. No field is filled in later.

A step on one problem with two completions, stage by stage::

    Prompt(problem, token_ids=(1, 4093, ...))
    Group(prompt, (Completion((504, 2), (-0.2, -0.1), "…", "stop"), Completion(...)), version=7, position=0)
    ScoredGroup(group, (Score(1.0, {"correctness": 1.0}, Outcome.CORRECT, "71"), Score(...)))
    CreditedGroup(scored, advantages=((0.707, 0.707), (-0.707,)), pulls=({"correctness": 0.5}, {"correctness": -0.5}))
    Batch(micro_batches=((PromptTree(prompt_ids, (Branch(...), Branch(...))),),), denominator=4.0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.problem import Problem
from rewards.records import Score

TokenIds = NDArray[np.int32]
"""Token ids of one sequence, shape (T,)."""
Logps = NDArray[np.float32]
"""Log-probs of the tokens of one sequence, in nats, shape (T,)."""
Finish = Literal["stop", "length", "abort"]
"""How a completion ended: with an end token or a stop string; at the length limit; or because the engine gave it up."""
KlCosts = tuple[tuple[float, ...], ...]
"""For each completion of a group, what the KL to the reference takes off each token's reward; empty where nothing."""


@dataclass(frozen=True)
class Prompt:
    """A problem rendered to the token ids that both the engine and the trainer see."""

    problem: Problem
    token_ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Completion:
    """What the engine wrote. `sampler_logps` has one entry a token, in nats, at the sampling temperature."""

    token_ids: TokenIds
    sampler_logps: Logps
    text: str
    finish: Finish


@dataclass(frozen=True)
class Group:
    """All completions of one prompt, written by the policy of step `version`.

    `position` is the prompt's in what was asked: groups are finished in any order.
    """

    prompt: Prompt
    completions: tuple[Completion, ...]
    version: int
    position: int


@dataclass(frozen=True)
class ScoredGroup:
    """A group with one score for each of its completions."""

    group: Group
    scores: tuple[Score, ...]

    @property
    def rewards(self) -> tuple[float, ...]:
        return tuple(score.reward for score in self.scores)

    @property
    def parts(self) -> dict[str, tuple[float | None, ...]]:
        """By name, one value for each completion."""
        return {name: tuple(score.parts[name] for score in self.scores) for name in self.scores[0].parts}


@dataclass(frozen=True)
class CreditedGroup:
    """What a scored group teaches: an advantage for each token of each completion, and how hard each part of the
    reward pulls on each completion.

    The tokens of a completion share one advantage, unless a KL in the reward is charged from each token on. The pulls
    add up to what the rewards alone make of the advantage, but for a scale that all parts of the group share.
    """

    scored: ScoredGroup
    advantages: tuple[tuple[float, ...], ...]
    pulls: tuple[Mapping[str, float], ...]

    @property
    def of_completions(self) -> tuple[float, ...]:
        """One advantage a completion: its first token's, from which on everything is charged."""
        return tuple(row[0] for row in self.advantages)

    @property
    def is_dead(self) -> bool:
        """True when every advantage is exactly 0."""
        return not any(any(row) for row in self.advantages)


@dataclass(frozen=True)
class Branch:
    """One completion as the loss sees it: an advantage for each token, and one `weight` for all of them in the loss
    (before the batch's denominator)."""

    token_ids: tuple[int, ...]
    sampler_logps: tuple[float, ...]
    advantages: tuple[float, ...]
    weight: float


@dataclass(frozen=True)
class PromptTree:
    """A prompt and the completions that branch off it: computed as one sequence, the prompt only once."""

    prompt_ids: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + sum(len(branch.token_ids) for branch in self.branches)

    @property
    def num_pairs(self) -> int:
        """Pairs of a token with one that it sees."""
        prompt = len(self.prompt_ids)
        lengths = [len(branch.token_ids) for branch in self.branches]
        return prompt * (prompt + 1) // 2 + sum(length * prompt + length * (length + 1) // 2 for length in lengths)


@dataclass(frozen=True)
class Batch:
    """Everything one pass of the optimiser needs, the same on all ranks.

    Each micro-batch is a tuple of trees whose tokens fit the budget; of R ranks, rank r takes every R-th from the r-th
    on, and there are as many for each (some may be empty). `denominator` is the one number that divides the summed
    loss: taken over all micro-batches and all completions, those that are left out for lack of a signal included.
    """

    micro_batches: tuple[tuple[PromptTree, ...], ...]
    denominator: float

"""One frozen record per stage of the loop. No field is filled in later.

Tokens and log-probs are numpy arrays from the engine on: 4 bytes each, and handed to another process as they lie in
memory. They stay on the rank whose engine wrote them; what all ranks need of a group to agree on advantages and
micro-batches is its `GroupSummary`.

A step on one problem with two completions, stage by stage::

    Prompt(problem, token_ids=[1 4093 ...])
    Group(prompt, (Completion([504 2], [-0.2 -0.1], "…", "stop"), Completion(...)), version=7, position=0)
    ScoredGroup(group, (Score(1.0, {"correctness": 1.0}, Outcome.CORRECT, "71"), Score(...)))
    GroupSummary(position=0, owner=0, prompt_tokens=88, lengths=(2, 1), finishes=("stop", "length"), scores, ...)
    DrawnGroups(selection=Selection(kept=(summary, ...)), own={0: scored})
    CreditedGroup(summary, advantages=(0.707, -0.707), pulls=({"correctness": 0.5}, {"correctness": -0.5}))
    Batch(micro_batches=((PromptTree(prompt_ids, (Branch(...), Branch(...))),),), denominator=3.0, has_signal=True)
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
"""Token ids, shape (length,)."""
Floats = NDArray[np.float32]
"""One number for each token, shape (length,)."""
Finish = Literal["stop", "length", "abort"]
"""How a completion ended: with an end token or a stop string; at the length limit; or because the engine gave it up."""
KlCosts = tuple[Floats, ...]
"""For each completion of a group, what the KL to the reference takes off each token's reward."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A problem rendered to the token ids that both the engine and the trainer see."""

    problem: Problem
    token_ids: TokenIds


@dataclass(frozen=True, eq=False)
class Completion:
    """What the engine wrote. `sampler_logps` has one entry a token, in nats, at the sampling temperature."""

    token_ids: TokenIds
    sampler_logps: Floats
    text: str
    finish: Finish


@dataclass(frozen=True, eq=False)
class Group:
    """All completions of one prompt, written by the policy of step `version`.

    `position` is the prompt's in what its rank was asked: groups are finished in any order.
    """

    prompt: Prompt
    completions: tuple[Completion, ...]
    version: int
    position: int


@dataclass(frozen=True, eq=False)
class ScoredGroup:
    """A group with one score for each of its completions."""

    group: Group
    scores: tuple[Score, ...]

    def summary(self, owner: int = 0, position: int = 0) -> GroupSummary:
        """What other ranks need to know of the group: the `position`-th of its step, which lies on rank `owner`."""
        completions = self.group.completions
        return GroupSummary(
            position=position,
            owner=owner,
            prompt_tokens=len(self.group.prompt.token_ids),
            lengths=tuple(len(one.token_ids) for one in completions),
            finishes=tuple(one.finish for one in completions),
            sampler_logp_sums=tuple(float(one.sampler_logps.sum(dtype=np.float64)) for one in completions),
            scores=self.scores,
        )


@dataclass(frozen=True)
class GroupSummary:
    """A scored group without its tokens and texts: a few numbers for each completion, the same on all ranks.

    `position` is the group's among all that its step has drawn, in the problems' order, and names it within the step;
    `owner` is the rank that holds its tokens.
    """

    position: int
    owner: int
    prompt_tokens: int
    lengths: tuple[int, ...]
    finishes: tuple[Finish, ...]
    sampler_logp_sums: tuple[float, ...]
    """For each completion the log-prob, in nats, that the engine gave all of its tokens together."""
    scores: tuple[Score, ...]

    @property
    def rewards(self) -> tuple[float, ...]:
        return tuple(score.reward for score in self.scores)

    @property
    def parts(self) -> dict[str, tuple[float | None, ...]]:
        """By name, one value for each completion."""
        return {name: tuple(score.parts[name] for score in self.scores) for name in self.scores[0].parts}


@dataclass(frozen=True)
class Selection:
    """What a step has drawn, sorted into what its batch is made of and what is left out, each in the problems' order.

    `surplus` has a signal that there was no room for, `dead` has none. Neither takes part in the update, its
    denominator included.
    """

    kept: tuple[GroupSummary, ...]
    surplus: tuple[GroupSummary, ...] = ()
    dead: tuple[GroupSummary, ...] = ()

    @property
    def groups(self) -> tuple[GroupSummary, ...]:
        """All that was drawn."""
        return (*self.kept, *self.surplus, *self.dead)


@dataclass(frozen=True, eq=False)
class DrawnGroups:
    """What a step has drawn: the selection, the same on all ranks, and by position the groups that this rank wrote."""

    selection: Selection
    own: Mapping[int, ScoredGroup]


@dataclass(frozen=True)
class KlCharge:
    """What the KL in the reward charges one completion, as far as other ranks need to know it.

    A token is charged its own cost and that of all that follow it: `total` is the first token's charge. `mean`,
    `squares` (the sum of squared distances from the mean), `least` and `most` are over the charges of its tokens.
    """

    total: float = 0.0
    mean: float = 0.0
    squares: float = 0.0
    least: float = 0.0
    most: float = 0.0


@dataclass(frozen=True)
class CreditedGroup:
    """What a scored group teaches: an advantage for each completion, and how hard each part of the reward pulls on it.

    The tokens of a completion share its advantage, unless a KL in the reward is charged token by token: then it is the
    first token's, on which all of the completion's cost is charged, and each later one gets back `charge_scale` times
    what the tokens before it cost. The pulls add up to what the rewards alone make of the advantage, but for a scale
    that all parts of the group share.

    `left_out` has the numbers of completions that take no part in the loss nor in its denominator; their advantage is
    0.
    """

    summary: GroupSummary
    advantages: tuple[float, ...]
    pulls: tuple[Mapping[str, float], ...]
    charge_scale: float = 0.0
    left_out: frozenset[int] = frozenset()

    @property
    def is_dead(self) -> bool:
        """True when every advantage is exactly 0."""
        return not any(self.advantages)


@dataclass(frozen=True, eq=False)
class Branch:
    """One completion as the loss sees it: an advantage for each token, and one `weight` for all of them in the loss
    (before the batch's denominator)."""

    token_ids: TokenIds
    sampler_logps: Floats
    advantages: Floats
    weight: float


@dataclass(frozen=True, eq=False)
class PromptTree:
    """A prompt and the completions that branch off it: computed as one sequence, the prompt only once."""

    prompt_ids: TokenIds
    branches: tuple[Branch, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + sum(len(branch.token_ids) for branch in self.branches)


@dataclass(frozen=True, eq=False)
class Batch:
    """Everything that one rank needs for one pass of the optimiser.

    Each micro-batch is a tuple of trees whose tokens fit the budget; every rank has as many of them, some of which may
    be empty. `denominator` is the one number that divides the summed loss, the same on all ranks: taken over all
    micro-batches and all completions, those that are left out for lack of a signal included. `has_signal` says whether
    any rank has a tree.
    """

    micro_batches: tuple[tuple[PromptTree, ...], ...]
    denominator: float
    has_signal: bool

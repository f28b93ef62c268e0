"""Groups of completions, and what becomes of them on one rank, for tests that know the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from data.problem import Problem
from grpo.advantages.compute import charge_of, compute_advantages, leave_out_truncated, takes_charge
from grpo.batching.micro_batches import make_batches
from grpo.parallel.world import DistributedWorld, SoleWorld, World
from grpo.policy.credit import CreditAssigner
from grpo.policy.policy import Policy
from grpo.recipe.sections import UpdateSection, advantage_of
from grpo.records import (
    Batch,
    Branch,
    Completion,
    CreditedGroup,
    DrawnGroups,
    Finish,
    Floats,
    KlCosts,
    Prompt,
    PromptTree,
    ScoredGroup,
    Selection,
    TokenIds,
)
from rewards.spec import RewardSpec

PROBLEM = Problem("toy/train/0", "?", "1", "integer", "toy", 0)


def token_ids(*ids: int) -> TokenIds:
    return np.array(ids, dtype=np.int32)


def floats(*values: float) -> Floats:
    return np.array(values, dtype=np.float32)


def prompt_of(ids: Sequence[int], problem: Problem = PROBLEM) -> Prompt:
    return Prompt(problem, token_ids(*ids))


def completion_of(
    ids: Sequence[int], logps: Sequence[float] | float = -1.5, text: str = "", finish: Finish = "stop"
) -> Completion:
    """`logps` of each token, or one for all of them."""
    of_tokens = [logps] * len(ids) if isinstance(logps, float | int) else logps
    return Completion(token_ids(*ids), floats(*of_tokens), text, finish)


def branch_of(
    ids: Sequence[int],
    logps: Sequence[float] | float = -1.5,
    advantage: Sequence[float] | float = 1.0,
    weight: float = 1.0,
) -> Branch:
    """Log-probs and advantages of each token, or one for all of them."""
    rows = [[one] * len(ids) if isinstance(one, float | int) else one for one in (logps, advantage)]
    return Branch(token_ids(*ids), floats(*rows[0]), floats(*rows[1]), weight)


def tree_of(prompt: Sequence[int], *branches: Branch) -> PromptTree:
    return PromptTree(token_ids(*prompt), branches)


def drawn_of(groups: Sequence[ScoredGroup], world: World | None = None) -> DrawnGroups:
    """All of them kept. Of ranks that can reach each other each holds every so manieth, a rank alone holds all."""
    size = world.size if world else 1
    summaries = tuple(group.summary(number % size, number) for number, group in enumerate(groups))
    held = world.stride(range(len(groups))) if isinstance(world, DistributedWorld) else range(len(groups))
    return DrawnGroups(Selection(summaries), {number: groups[number] for number in held})


def credit_of(
    groups: Sequence[ScoredGroup], rewards: Sequence[RewardSpec], update: UpdateSection, costs: Sequence[KlCosts] = ()
) -> list[CreditedGroup]:
    """What the groups teach; `costs` is what the KL costs each token of each completion of each group."""
    summaries, advantage = drawn_of(groups).selection.kept, advantage_of(update)
    charged = {n: row for n, row in enumerate(costs) if takes_charge(summaries[n], advantage)}
    charges = {number: [charge_of(one) for one in row] for number, row in charged.items()}
    credited = compute_advantages(summaries, charges, rewards, advantage)
    return [leave_out_truncated(one) for one in credited] if update.truncated == "leave_out" else credited


def batches_of(
    groups: Sequence[ScoredGroup],
    rewards: Sequence[RewardSpec],
    update: UpdateSection,
    max_new_tokens: int,
    world: World | None = None,
    costs: Sequence[KlCosts] = (),
) -> list[Batch]:
    """One for each mini-batch."""

    credited = credit_of(groups, rewards, update, costs)
    own = dict(enumerate(groups))
    return make_batches(
        credited, own, dict(enumerate(costs)), update, max_new_tokens, world or SoleWorld(torch.device("cpu"))
    )


def learnt_by(
    policy: Policy, world: World, groups: Sequence[ScoredGroup], rewards: Sequence[RewardSpec], max_new_tokens: int
) -> list[Batch]:
    """What a rank of the policy's world computes of the groups, as the loop lays it out."""
    assigner = CreditAssigner(policy, world, rewards, policy.settings.update, max_new_tokens)
    drawn = drawn_of(groups, world)
    return assigner.batches(drawn, assigner.assign(drawn))

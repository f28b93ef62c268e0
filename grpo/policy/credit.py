"""From what a step has drawn to what the update learns from: advantages, and micro-batches for every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grpo.advantages.compute import Charges, charge_of, compute_advantages, leave_out_truncated, takes_charge
from grpo.batching.micro_batches import make_batches
from grpo.parallel.world import World
from grpo.policy.policy import Policy
from grpo.recipe.sections import UpdateSection, advantage_of
from grpo.records import Batch, CreditedGroup, DrawnGroups, KlCosts
from rewards.spec import RewardSpec


@dataclass(frozen=True, eq=False)
class Credit:
    """What a step's groups teach: all groups of all ranks, and by position what the KL in the reward costs each token
    of this rank's."""

    groups: tuple[CreditedGroup, ...]
    costs: Mapping[int, KlCosts]


class CreditAssigner:
    """Says what each token of a step is worth, and lays out who computes it. All ranks take part."""

    def __init__(
        self,
        policy: Policy,
        world: World,
        rewards: Sequence[RewardSpec],
        settings: UpdateSection,
        max_new_tokens: int,
    ) -> None:
        self._policy = policy
        self._world = world
        self._rewards = rewards
        self._settings = settings
        self._max_new_tokens = max_new_tokens

    def assign(self, drawn: DrawnGroups) -> Credit:
        """The advantages of everything that the step learns from, the same on all ranks."""
        advantage = advantage_of(self._settings)
        kept = drawn.selection.kept
        charged = [one.position for one in kept if takes_charge(one, advantage)]
        costs = self._policy.kl_costs({one: drawn.own[one] for one in charged if one in drawn.own})
        groups = compute_advantages(kept, self._charges(costs), self._rewards, advantage)
        if self._settings.truncated == "leave_out":
            groups = [leave_out_truncated(one) for one in groups]
        return Credit(tuple(groups), costs)

    def batches(self, drawn: DrawnGroups, credit: Credit) -> list[Batch]:
        """What this rank computes in each pass of the optimiser."""
        return make_batches(credit.groups, drawn.own, credit.costs, self._settings, self._max_new_tokens, self._world)

    def _charges(self, costs: Mapping[int, KlCosts]) -> Charges:
        if self._settings.kl_in != "reward":
            return {}
        own = {position: [charge_of(one) for one in group] for position, group in costs.items()}
        return {position: one for each in self._world.gather(own) for position, one in each.items()}

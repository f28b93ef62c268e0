"""Drawing a step's groups: prompts, completions and scores, round by round, until the batch is full."""

from __future__ import annotations

from grpo.parallel.world import World
from grpo.records import ScoredGroup
from grpo.rollout.dynamic_sampling import DrawnGroups, Fill
from grpo.rollout.engines.protocol import Sampling
from grpo.rollout.generate import GenerationPlan, Rollouts
from grpo.rollout.prompts import PromptSet
from grpo.rollout.scoring import GroupScorer


class Collector:
    """Draws what a step learns from. All ranks share each round, see all of its scores, and so go on or stop alike."""

    def __init__(
        self,
        prompts: PromptSet,
        rollouts: Rollouts,
        scorer: GroupScorer,
        world: World,
        sampling: Sampling,
        group_size: int,
        fill: Fill,
    ) -> None:
        self._prompts = prompts
        self._rollouts = rollouts
        self._scorer = scorer
        self._world = world
        self._sampling = sampling
        self._group_size = group_size
        self._fill = fill

    def draw(self, step: int) -> DrawnGroups:
        """GenerationPlan the step's rounds until one fills the batch, or there are no more of them.

        Nothing but the step says which prompts come and how their completions are drawn: neither the round that a
        prompt comes in nor what the rounds before it gave.
        """
        how = GenerationPlan(self._group_size, self._sampling, f"step {step}")
        scored: list[ScoredGroup] = []
        for prompts in self._prompts.rounds(step):
            groups = self._rollouts.write(self._world.stride(prompts), how)
            scored += self._world.interleave(self._scorer.score(groups, step))
            if len(self._fill(scored).kept) >= self._prompts.per_step:
                break
        return self._fill(scored)

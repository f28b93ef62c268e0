"""Drawing a step's groups: prompts, completions and scores, round by round, until the batch is full."""

from __future__ import annotations

from grpo.parallel.world import World
from grpo.records import DrawnGroups, GroupSummary, ScoredGroup
from grpo.rollout.dynamic_sampling import Select
from grpo.rollout.engines.protocol import Sampling
from grpo.rollout.generate import GenerationPlan, Rollouts, count_repeats
from grpo.rollout.prompts import PromptSet
from grpo.rollout.scoring import GroupScorer


class Collector:
    """Draws what a step learns from. All ranks share each round, know all of its scores, and go on or stop alike."""

    def __init__(
        self,
        prompts: PromptSet,
        rollouts: Rollouts,
        scorer: GroupScorer,
        world: World,
        sampling: Sampling,
        group_size: int,
        select: Select,
    ) -> None:
        self._prompts = prompts
        self._rollouts = rollouts
        self._scorer = scorer
        self._world = world
        self._sampling = sampling
        self._group_size = group_size
        self._select = select

    def draw(self, step: int) -> DrawnGroups:
        """Draw the step's rounds until one fills the batch, or there are no more of them.

        Nothing but the step says which prompts come and how their completions are drawn: neither the round that a
        prompt comes in nor what the rounds before it gave.
        """
        plan = GenerationPlan(self._group_size, self._sampling, f"step {step}")
        own: dict[int, ScoredGroup] = {}
        summaries: list[GroupSummary] = []
        for prompts in self._prompts.rounds(step):
            positions = self._world.stride(range(len(summaries), len(summaries) + len(prompts)))
            repeats = self._world.stride(count_repeats(prompts))
            groups = self._scorer.score(self._rollouts.write(self._world.stride(prompts), plan, repeats), step)
            written = dict(zip(positions, groups, strict=True))
            own |= written
            summaries += self._world.interleave(
                [group.summary(self._world.rank, position) for position, group in written.items()]
            )
            if len(self._select(summaries).kept) >= self._prompts.per_step:
                break
        return DrawnGroups(self._select(summaries), own)

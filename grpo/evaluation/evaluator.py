"""Held-out evaluation, with the same prompts, engine, rewards and code path as training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.spec import SourceSpec
from grpo.evaluation.metrics import eval_metrics
from grpo.parallel.world import World
from grpo.phases import PhaseClock
from grpo.recipe.interval import is_due
from grpo.recipe.sections import EvalSection
from grpo.records import GroupSummary, Prompt, ScoredGroup
from grpo.rollout.engines.protocol import Sampling
from grpo.rollout.generate import GenerationPlan, Rollouts
from grpo.rollout.scoring import GroupScorer


@dataclass(frozen=True)
class HeldOut:
    """One evaluation set under the name that its metrics carry."""

    name: str
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found: metrics by name, the same on all ranks, and by source the groups that this rank wrote,
    by their number in the set."""

    metrics: dict[str, float]
    own: dict[str, dict[int, ScoredGroup]]


class Evaluator:
    """Evaluates the current policy on every held-out set, all ranks sharing the work."""

    def __init__(
        self,
        sets: Sequence[HeldOut],
        settings: EvalSection,
        last_step: int,
        sampling: Sampling,
        rollouts: Rollouts,
        scorer: GroupScorer,
        world: World,
        clock: PhaseClock,
    ) -> None:
        self._sets = sets
        self._settings = settings
        self._last_step = last_step
        self._sampling = sampling
        self._rollouts = rollouts
        self._scorer = scorer
        self._world = world
        self._clock = clock

    def evaluate_if_due(self, step: int) -> Evaluation | None:
        """Evaluate after the last step, and every so many steps before it."""
        return self.evaluate(step) if step == self._last_step or is_due(step, self._settings.every) else None

    def evaluate(self, step: int) -> Evaluation:
        """Metrics and completions of every held-out set. Seeds do not depend on the step, so that two
        evaluations differ by the policy alone."""
        own: dict[str, dict[int, ScoredGroup]] = {}
        metrics: dict[str, float] = {}
        with self._clock.phase("eval"):
            for held_out in self._sets:
                own[held_out.name] = self._score(held_out, step)
                metrics |= eval_metrics(held_out.name, self._summaries(own[held_out.name]))
        return Evaluation(metrics, own)

    def _score(self, held_out: HeldOut, step: int) -> dict[int, ScoredGroup]:
        plan = GenerationPlan(self._settings.num_completions, self._sampling, f"eval {held_out.name}")
        numbers = self._world.stride(range(len(held_out.prompts)))
        groups = self._scorer.score(self._rollouts.write(self._world.stride(held_out.prompts), plan), step)
        return dict(zip(numbers, groups, strict=True))

    def _summaries(self, own: Mapping[int, ScoredGroup]) -> list[GroupSummary]:
        """Of all ranks' groups, in the order of the set."""
        return self._world.interleave([group.summary(self._world.rank, number) for number, group in own.items()])


def set_names(specs: Sequence[SourceSpec]) -> list[str]:
    """A name for each evaluation source: its own, or its file's; numbered where two would be the same."""
    plain = [spec.path.rstrip("/").split("/")[-1].split(".")[0] if spec.path else spec.source for spec in specs]
    return [name if plain.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(plain, 1)]

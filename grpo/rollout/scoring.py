"""Groups to the reward workers and back: what `rewards` may know of a group, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.templates import Template
from grpo.errors import UserError
from grpo.phases import PhaseClock
from grpo.recipe.sections import ScoringSection
from grpo.records import Group, ScoredGroup
from rewards.records import Response, Score, ScoreRequest
from rewards.scorer import Fault, Scorer
from rewards.spec import RewardSpec

if TYPE_CHECKING:  # `grpo score` uses this module and starts without torch
    from grpo.parallel.world import World

_LOG = logging.getLogger(__name__)
_FAULTS_NAMED = 5


def open_scorer(rewards: Sequence[RewardSpec], scoring: ScoringSection) -> Scorer:
    """The reward workers with a recipe's limits. Raises UserError for a function that cannot be imported."""
    try:
        return Scorer(
            rewards,
            num_workers=scoring.workers,
            deadline_s=scoring.deadline_s,
            memory_bytes=int(scoring.memory_gib * 2**30),
            policy=scoring.policy,
            format_gates=scoring.format_gates,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


@dataclass(frozen=True)
class Failures:
    """On how many of a rank's completions a verdict or a reward failed, and the first faults."""

    num_completions: int
    num_failed: int
    named: tuple[str, ...]


class GroupScorer:
    """Scores groups in worker processes while others are still being written.

    Whether too many scores failed is decided from those of all ranks together, so that all of them end or go on alike.
    """

    def __init__(
        self, scorer: Scorer, template: Template, scoring: ScoringSection, clock: PhaseClock, world: World
    ) -> None:
        self._scorer = scorer
        self._template = template
        self._scoring = scoring
        self._clock = clock
        self._world = world

    def score(self, groups: Iterable[Group], step: int) -> list[ScoredGroup]:
        """Scores of this rank's groups, in the order of their prompts, however they come. All ranks take part.

        Raises UserError when a verdict or a reward failed on more completions than the recipe allows, unless it
        asks for a warning.
        """
        submitted = []
        for group in groups:
            self._scorer.submit(self._request(group, step))
            submitted.append(group)
        with self._clock.phase("score"):
            results = [self._scorer.collect_first() for _ in submitted]
        # Outside the phase: this waits for ranks that are still generating.
        self._check_failures(self._world.gather(_failures(results)), step)
        scored = [ScoredGroup(group, scores) for group, (scores, _) in zip(submitted, results, strict=True)]
        return sorted(scored, key=lambda one: one.group.position)

    def check_golds(self, pairs: Sequence[tuple[str, str]]) -> list[str | None]:
        """For each (checker, gold): why it cannot judge anything, or None."""
        return self._scorer.check_golds(pairs)

    def close(self) -> None:
        self._scorer.close()

    def _check_failures(self, of_ranks: Sequence[Failures], step: int) -> None:
        """Note the share of completions on which a verdict or a reward failed; too large a one is not passed over."""
        num_completions = sum(one.num_completions for one in of_ranks)
        failed = sum(one.num_failed for one in of_ranks) / max(1, num_completions)
        self._clock.note("score/failed_frac", failed)
        if failed > self._scoring.max_failed_frac:
            limit = (
                f"scoring.max_failed_frac={self._scoring.max_failed_frac}: on {failed:.0%} of the completions of step "
                f"{step} a verdict or a reward timed out or crashed; raise scoring.deadline_s or scoring.memory_gib, "
                "or mend the reward"
            )
            if self._scoring.when_failing == "stop":
                named = [line for one in of_ranks for line in one.named]
                raise UserError("\n".join([limit, *named[:_FAULTS_NAMED]]))
            if self._world.rank == 0:
                _LOG.warning("%s", limit)

    def _request(self, group: Group, step: int) -> ScoreRequest:
        problem = group.prompt.problem
        return ScoreRequest(
            id=problem.id,
            question=problem.question,
            gold=problem.gold,
            checker=problem.checker,
            responses=tuple(
                Response(one.text, len(one.token_ids), one.finish == "length") for one in group.completions
            ),
            opens_think=self._template.opens_think,
            answer_style=self._template.answer_style,
            columns=problem.columns,
            step=step,
        )


def _failures(results: Sequence[tuple[Sequence[Score], Sequence[Fault]]]) -> Failures:
    faults = [fault for _, group_faults in results for fault in group_faults]
    return Failures(
        num_completions=sum(len(scores) for scores, _ in results),
        num_failed=sum(_num_failed(scores, group_faults) for scores, group_faults in results),
        named=tuple(f"  {one.reward}: {one.outcome.value}: {one.detail}" for one in faults[:_FAULTS_NAMED]),
    )


def _num_failed(scores: Sequence[Score], faults: Sequence[Fault]) -> int:
    """Completions of a group on which something failed: a reward is called once for all of them."""
    return len(scores) if faults else sum(score.has_failed for score in scores)

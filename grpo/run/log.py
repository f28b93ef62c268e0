"""What a run reports while it trains: rows in its folder, lines on the screen, metrics to trackers, the report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from data.templates import Template
from grpo.evaluation.changes import first_and_last, source_changes
from grpo.evaluation.evaluator import Evaluation
from grpo.parallel.world import World
from grpo.phases import PhaseClock
from grpo.policy.credit import Credit
from grpo.recipe.interval import is_due
from grpo.recipe.sections import Recipe
from grpo.records import DrawnGroups, ScoredGroup
from grpo.report import write_report
from grpo.rows import CHANGES, COMPLETIONS, EVALS, METRICS, read_rows
from grpo.run.folder import RunFolder
from grpo.run.metrics import step_metrics
from grpo.run.screen import Display
from grpo.run.trackers import Trackers

Row = dict[str, Any]
_SHOWN = 2


class RunLog(Protocol):
    """What the training loop reports to."""

    def describe(self, engine: Mapping[str, str]) -> None:
        """Which engine writes the completions."""

    def begin(self, step: int) -> None:
        """Training starts, or goes on after `step`."""

    def evaluation(self, step: int, found: Evaluation) -> None:
        """An evaluation outside of a step: the one before training."""

    def completions(self, step: int, drawn: DrawnGroups, credit: Credit) -> None:
        """Keep what was written and how it was judged, on all ranks, before anything is learnt from it."""

    def step(
        self,
        step: int,
        drawn: DrawnGroups,
        credit: Credit,
        stats: Mapping[str, float],
        found: Evaluation | None,
    ) -> None:
        """A step is done; `credit` is of what was kept of `drawn`."""

    def finish(self) -> None:
        """Training is over."""


class MainLog:
    """The log of the first rank: the one that writes."""

    def __init__(
        self,
        folder: RunFolder,
        display: Display,
        trackers: Trackers,
        recipe: Recipe,
        template: Template,
        world: World,
        clock: PhaseClock,
    ) -> None:
        self._folder = folder
        self._display = display
        self._trackers = trackers
        self._recipe = recipe
        self._template = template
        self._world = world
        self._clock = clock
        self._shown: list[Row] = []

    def describe(self, engine: Mapping[str, str]) -> None:
        facts = {"engine": dict(engine), "device": str(self._world.device), "num_ranks": self._world.size}
        self._folder.describe_environment(facts)

    def begin(self, step: int) -> None:
        for line in self._folder.go_on(step):
            self._display.message(line)
        if step >= self._recipe.run.steps:
            self._display.message(f"already at step {step} of {self._recipe.run.steps}; set run.steps higher to go on")
        elif step:
            self._display.message(f"going on after step {step}, from the checkpoint in {self._folder.path}")

    def evaluation(self, step: int, found: Evaluation) -> None:
        self._keep_evaluation(step, found)
        self._write({"step": step, "time_unix": time.time(), **self._clock.lap(), **found.metrics})

    def completions(self, step: int, drawn: DrawnGroups, credit: Credit) -> None:
        rows = ordered_rows(self._world.gather_on_first(drawn_rows(step, drawn, credit, self._template)))
        self._folder.append(COMPLETIONS, rows)
        self._shown = best_and_worst(rows, _SHOWN)
        rollout, num_kept = self._recipe.rollout, len(drawn.selection.kept)
        if rollout.max_rounds > 1 and num_kept < rollout.prompts_per_step:
            self._display.message(
                f"step {step}: {num_kept} of {len(drawn.selection.groups)} drawn groups have a signal, fewer than the "
                f"{rollout.prompts_per_step} of a full batch (rollout.max_rounds={rollout.max_rounds})"
            )

    def step(
        self,
        step: int,
        drawn: DrawnGroups,
        credit: Credit,
        stats: Mapping[str, float],
        found: Evaluation | None,
    ) -> None:
        notes = worst_notes(self._world, self._clock)
        lap = self._clock.lap()
        selection = drawn.selection
        num_tokens = sum(length for group in selection.groups for length in group.lengths)
        row = {
            "step": step,
            "time_unix": time.time(),
            **step_metrics(credit.groups, selection.surplus, selection.dead),
            **stats,
            **notes,
            **lap,
            "speed/tokens_per_s": num_tokens / lap["time/generate_s"],
        }
        if found:
            self._keep_evaluation(step, found)
        self._write(row | (found.metrics if found else {}))
        if self._tells(step, self._recipe.log.show_every):
            self._display.completions(step, self._shown)
        if self._tells(step, self._recipe.log.report_every):
            write_report(self._folder.path)

    def finish(self) -> None:
        report = write_report(self._folder.path)
        rows = list(read_rows(self._folder.path / METRICS))
        judged = read_rows(self._folder.path / EVALS, first_and_last(rows))
        changed = read_rows(self._folder.path / CHANGES)
        self._display.summary(source_changes(rows, judged, changed), report)

    def _keep_evaluation(self, step: int, found: Evaluation) -> None:
        rows = self._world.gather_on_first(evaluation_rows(step, found, self._template))
        self._folder.append(EVALS, ordered_rows(rows))

    def _write(self, row: Row) -> None:
        self._folder.append(METRICS, [row])
        self._trackers.log(row["step"], row)
        self._display.step(row)

    def _tells(self, step: int, every: int) -> bool:
        """The first step is told of as well, so that the first look comes soon; unless nothing is to be told."""
        return is_due(step, every) or (every > 0 and step == 1)


class QuietLog:
    """The log of every other rank: it hands its rows and notes to the first and writes nothing."""

    def __init__(self, template: Template, world: World, clock: PhaseClock) -> None:
        self._template = template
        self._world = world
        self._clock = clock

    def describe(self, engine: Mapping[str, str]) -> None:
        """All ranks have the same engine."""

    def begin(self, step: int) -> None:
        """The first rank puts the folder in order."""

    def evaluation(self, step: int, found: Evaluation) -> None:
        self._world.gather_on_first(evaluation_rows(step, found, self._template))
        self._clock.lap()

    def completions(self, step: int, drawn: DrawnGroups, credit: Credit) -> None:
        self._world.gather_on_first(drawn_rows(step, drawn, credit, self._template))

    def step(
        self,
        step: int,
        drawn: DrawnGroups,
        credit: Credit,
        stats: Mapping[str, float],
        found: Evaluation | None,
    ) -> None:
        worst_notes(self._world, self._clock)
        if found:
            self._world.gather_on_first(evaluation_rows(step, found, self._template))
        self._clock.lap()

    def finish(self) -> None:
        """The first rank writes the report."""


def worst_notes(world: World, clock: PhaseClock) -> dict[str, float]:
    """What the parts noted since the last lap, each number the largest of all ranks."""
    worst: dict[str, float] = {}
    for notes in world.gather(clock.notes()):
        for name, value in notes.items():
            worst[name] = max(value, worst.get(name, value))
    return worst


OwnRows = dict[tuple[int, int], list[Row]]
"""A rank's rows by where their group belongs among those of all ranks."""


def drawn_rows(step: int, drawn: DrawnGroups, credit: Credit, template: Template) -> OwnRows:
    """One row for each completion that this rank drew: those of the batch first, then those that were left out of it.

    `in_batch`: whether the completion is one of those that the step learns from, if only by being counted.
    """
    rows: OwnRows = {}
    credited = {one.summary.position: one for one in credit.groups}
    for place, group in enumerate(drawn.selection.groups):
        if (own := drawn.own.get(group.position)) is not None:
            worth = credited.get(group.position)
            rows[0, place] = [
                {
                    **row,
                    "advantage": worth.advantages[index] if worth else 0.0,
                    "in_batch": worth is not None and index not in worth.left_out,
                }
                for index, row in enumerate(completion_rows(step, own, template))
            ]
    return rows


def evaluation_rows(step: int, found: Evaluation, template: Template) -> OwnRows:
    """One row for each held-out completion that this rank wrote."""
    return {
        (number, place): [{**row, "source": source} for row in completion_rows(step, group, template)]
        for number, (source, groups) in enumerate(found.own.items())
        for place, group in groups.items()
    }


def ordered_rows(of_ranks: Sequence[OwnRows]) -> list[Row]:
    """All ranks' rows, in the order that one rank alone would have written them in."""
    merged = {place: rows for own in of_ranks for place, rows in own.items()}
    return [row for place in sorted(merged) for row in merged[place]]


def completion_rows(step: int, scored: ScoredGroup, template: Template) -> Iterator[Row]:
    """One row for each completion of a group, with everything that was decided about it."""
    problem = scored.group.prompt.problem
    for index, (completion, score) in enumerate(zip(scored.group.completions, scored.scores, strict=True)):
        yield {
            "step": step,
            "problem_id": problem.id,
            "index": index,
            "question": problem.question,
            "gold": problem.gold,
            "checker": problem.checker,
            "text": completion.text,
            "finish": completion.finish,
            "num_tokens": len(completion.token_ids),
            "reward": score.reward,
            "parts": dict(score.parts),
            "outcome": score.outcome.value,
            "reason": score.reason,
            "answer": score.answer,
            "cpu_s": score.cpu_s,
            "opens_think": template.opens_think,
            "answer_style": template.answer_style,
        }


def best_and_worst(rows: Sequence[Row], num: int) -> list[Row]:
    """A few completions to look at: the best ones and the worst ones of a step, `num` in all."""
    ordered = sorted(rows, key=lambda row: -row["reward"])
    half = num // 2
    return ordered[: num - half] + ordered[len(ordered) - half :]

"""`grpo score FILE --compare OTHER.yaml`: the same completions judged by two verifiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from grpo.recipe.load import load_recipe
from grpo.score.failed_rewards import leave_if_any
from grpo.score.files import Summary
from grpo.score.output import open_writer, progress, short
from grpo.score.row_scorer import begun, open_scoring, recipe_of, rewards_of
from grpo.score.rows import batches, columns_needed, count_lines, read_completions, require_file
from rewards.jsonl import Row, RowWriter
from rewards.records import Outcome, Score

_ROWS_SHOWN = 20


class VerifierComparison:
    """What two verifiers, A and B, made of the same rows."""

    def __init__(self) -> None:
        self.summaries = (Summary(), Summary())
        self._pairs: Counter[tuple[Outcome, Outcome]] = Counter()
        self._num_paid_differently = 0
        self._shown: list[str] = []

    def see(self, row: Row, ours: Score | None, theirs: Score | None) -> dict[str, Any] | None:
        """Take notice of one row; gives the row to write where the outcomes differ."""
        for summary, score in zip(self.summaries, (ours, theirs), strict=True):
            summary.see(row, score)
        if ours is None or theirs is None:
            return None
        self._pairs[ours.outcome, theirs.outcome] += 1
        self._num_paid_differently += ours.reward != theirs.reward
        if ours.outcome is theirs.outcome:
            return None
        if len(self._shown) < _ROWS_SHOWN:
            self._shown.append(_shown(row, ours, theirs))
        return _difference(row, ours, theirs)

    def lines(self, names: tuple[str, str]) -> list[str]:
        """The whole comparison for the screen; `names` are what A and B are called."""
        means = [summary.mean_reward for summary in self.summaries]
        differing = sum(count for (ours, theirs), count in self._pairs.items() if ours is not theirs)
        more = differing - len(self._shown)
        return [
            *self.summaries[0].faults(),
            f"A: {names[0]}, mean reward {means[0]:.4f}",
            f"B: {names[1]}, mean reward {means[1]:.4f}",
            "",
            "outcomes by A (down) and by B (across)",
            *self._table(),
            "",
            f"of {self._pairs.total()} completions, {differing} are judged differently and "
            f"{self._num_paid_differently} are paid differently",
            *self._shown,
            *([f"and {more} more; --out FILE writes all of them"] if more else []),
        ]

    def _table(self) -> list[str]:
        """How often A's outcome (the row) met B's (the column); outcomes that never came are left out."""
        rows = [outcome for outcome in Outcome if any(outcome is ours for ours, _ in self._pairs)]
        columns = [outcome for outcome in Outcome if any(outcome is theirs for _, theirs in self._pairs)]
        return [
            f"{'':<15}" + "".join(f"{outcome.value:>15}" for outcome in columns),
            *(f"{ours.value:<15}" + "".join(f"{self._pairs[ours, theirs]:>15}" for theirs in columns) for ours in rows),
        ]


def compare_verifiers(
    file: Path, recipe_file: Path | None, overrides: Sequence[str], other: Path, out: Path | None
) -> None:
    """GroupScorer a file's completions by a recipe (or without one) and by another, and print where they differ.

    `out` gets the rows on which the outcomes differ, as JSON lines. Leaves with exit code 1, after all of it, when a
    reward of either has failed on any row.
    """
    require_file(file)
    recipes = recipe_of(recipe_file, overrides), load_recipe(other)
    names = str(recipe_file or "the default rewards"), str(other)
    needed = columns_needed([spec for recipe in recipes for spec in rewards_of(recipe)])
    with ExitStack() as stack:
        judges = [stack.enter_context(open_scoring(recipe)) for recipe in recipes]
        writer = stack.enter_context(open_writer(out, file)) if out else None
        advance = stack.enter_context(progress(count_lines(file), rows_on_screen=False))
        comparison = VerifierComparison()
        for batch in begun(batches(read_completions(file, needed)), judges):
            rows = [row for group in batch for row in group]
            _see_batch(comparison, rows, [judge.collect(batch) for judge in judges], writer)
            advance(len(rows))
    print("\n".join(comparison.lines(names)))
    leave_if_any({"A: ": judges[0].failed, "B: ": judges[1].failed})


def _see_batch(
    comparison: VerifierComparison, rows: Sequence[Row], scores: Sequence[list[Score | None]], writer: RowWriter | None
) -> None:
    for row, ours, theirs in zip(rows, *scores, strict=True):
        difference = comparison.see(row, ours, theirs)
        if writer and difference:
            writer.write(difference)
    if writer:
        writer.flush()


def _difference(row: Row, ours: Score, theirs: Score) -> dict[str, Any]:
    found: dict[str, Any] = {"row": row.number, "gold": row.fields["gold"]}
    for side, score in (("a", ours), ("b", theirs)):
        found |= {
            f"answer_{side}": score.answer,
            f"outcome_{side}": score.outcome,
            f"reward_{side}": score.reward,
            f"reason_{side}": score.reason,
        }
    return found


def _shown(row: Row, ours: Score, theirs: Score) -> str:
    sides = [
        f"  {name} {score.outcome.value:<13} {'no answer' if score.answer is None else short(score.answer)}"
        + (f"  ({short(score.reason)})" if score.reason else "")
        for name, score in (("A", ours), ("B", theirs))
    ]
    return "\n".join([f"row {row.number}: gold {short(row.fields['gold'])}", *sides])

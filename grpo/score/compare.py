"""`grpo score FILE --compare OTHER.yaml`: the same completions scored by two recipes, A and B."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from grpo.recipe.load import load_recipe
from grpo.score.failed_rewards import exit_if_any
from grpo.score.files import Summary
from grpo.score.output import open_writer, progress, short
from grpo.score.row_scorer import load_named_recipe, open_row_scorer, rewards_of, submitted_ahead
from grpo.score.rows import batches, columns_needed, count_lines, read_completions, require_file
from rewards.jsonl import Row, RowWriter
from rewards.records import Outcome, Score

_ROWS_SHOWN = 20


class RecipeComparison:
    """How the scores of two recipes, A and B, differ on the same rows."""

    def __init__(self) -> None:
        self.summaries = (Summary(), Summary())
        self._num_of_outcomes: Counter[tuple[Outcome, Outcome]] = Counter()
        self._num_other_rewards = 0
        self._shown: list[str] = []

    def add(self, row: Row, score_a: Score | None, score_b: Score | None) -> dict[str, Any] | None:
        """Count one row. Returns what is to be written of it, or None where the outcomes are the same."""
        for summary, score in zip(self.summaries, (score_a, score_b), strict=True):
            summary.add(row, score)
        if score_a is None or score_b is None:
            return None
        self._num_of_outcomes[score_a.outcome, score_b.outcome] += 1
        self._num_other_rewards += score_a.reward != score_b.reward
        if score_a.outcome is score_b.outcome:
            return None
        if len(self._shown) < _ROWS_SHOWN:
            self._shown.append(_shown(row, score_a, score_b))
        return _difference(row, score_a, score_b)

    def lines(self, names: tuple[str, str]) -> list[str]:
        """The whole comparison for the screen; `names` are those of A and B."""
        means = [summary.mean_reward for summary in self.summaries]
        differing = sum(count for (a, b), count in self._num_of_outcomes.items() if a is not b)
        more = differing - len(self._shown)
        return [
            *self.summaries[0].faults(),
            f"A: {names[0]}, mean reward {means[0]:.4f}",
            f"B: {names[1]}, mean reward {means[1]:.4f}",
            "",
            "outcomes by A (down) and by B (across)",
            *self._table(),
            "",
            f"of {self._num_of_outcomes.total()} completions, {differing} have another outcome and "
            f"{self._num_other_rewards} another reward",
            *self._shown,
            *([f"and {more} more; --out FILE writes all of them"] if more else []),
        ]

    def _table(self) -> list[str]:
        """How many rows have A's outcome (down) and B's (across); outcomes of no row are left out."""
        counts = self._num_of_outcomes
        rows = [outcome for outcome in Outcome if any(outcome is a for a, _ in counts)]
        columns = [outcome for outcome in Outcome if any(outcome is b for _, b in counts)]
        return [
            f"{'':<15}" + "".join(f"{outcome.value:>15}" for outcome in columns),
            *(f"{a.value:<15}" + "".join(f"{counts[a, b]:>15}" for b in columns) for a in rows),
        ]


def compare_recipes(
    file: Path, recipe_file: Path | None, overrides: Sequence[str], other: Path, out: Path | None
) -> None:
    """Score a file's completions by a recipe (or the default rewards) and by another; print where they differ.

    `out` gets the rows on which the outcomes differ, as JSON lines. Exits with code 1, after all rows, when a reward of
    either has failed on any of them.
    """
    require_file(file)
    recipes = load_named_recipe(recipe_file, overrides), load_recipe(other)
    names = str(recipe_file or "the default rewards"), str(other)
    needed = columns_needed([spec for recipe in recipes for spec in rewards_of(recipe)])
    with ExitStack() as stack:
        scorers = [stack.enter_context(open_row_scorer(recipe)) for recipe in recipes]
        writer = stack.enter_context(open_writer(out, file)) if out else None
        advance = stack.enter_context(progress(count_lines(file), rows_on_screen=False))
        comparison = RecipeComparison()
        for batch in submitted_ahead(batches(read_completions(file, needed)), scorers):
            rows = [row for group in batch for row in group]
            _add_batch(comparison, rows, [scorer.collect(batch) for scorer in scorers], writer)
            advance(len(rows))
    print("\n".join(comparison.lines(names)))
    exit_if_any({"A: ": scorers[0].failed, "B: ": scorers[1].failed})


def _add_batch(
    comparison: RecipeComparison, rows: Sequence[Row], scores: Sequence[list[Score | None]], writer: RowWriter | None
) -> None:
    for row, score_a, score_b in zip(rows, *scores, strict=True):
        difference = comparison.add(row, score_a, score_b)
        if writer and difference:
            writer.write(difference)
    if writer:
        writer.flush()


def _difference(row: Row, score_a: Score, score_b: Score) -> dict[str, Any]:
    found: dict[str, Any] = {"row": row.number, "gold": row.fields["gold"]}
    for side, score in (("a", score_a), ("b", score_b)):
        found |= {
            f"answer_{side}": score.answer,
            f"outcome_{side}": score.outcome,
            f"reward_{side}": score.reward,
            f"reason_{side}": score.reason,
        }
    return found


def _shown(row: Row, score_a: Score, score_b: Score) -> str:
    sides = [
        f"  {name} {score.outcome.value:<13} {'no answer' if score.answer is None else short(score.answer)}"
        + (f"  ({short(score.reason)})" if score.reason else "")
        for name, score in (("A", score_a), ("B", score_b))
    ]
    return "\n".join([f"row {row.number}: gold {short(row.fields['gold'])}", *sides])

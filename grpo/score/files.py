"""`grpo score FILE`: a reward for each completion of a file, in its order."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grpo.score.failed_rewards import exit_if_any
from grpo.score.output import open_writer, progress
from grpo.score.row_scorer import load_named_recipe, open_row_scorer, rewards_of, submitted_ahead
from grpo.score.rows import batches, columns_needed, count_lines, read_completions, require_file
from rewards.jsonl import Row
from rewards.records import Score

_FAULTS_NAMED = 20


class Summary:
    """The figures of a whole file: outcomes, mean reward, and the rows that could not be used."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._total_reward = 0.0
        self._faults: list[str] = []
        self._num_faults = 0

    def add(self, row: Row, score: Score | None) -> None:
        """Count one row; `score` is None where it could not be used."""
        if score is not None:
            self.outcomes[score.outcome.value] += 1
            self._total_reward += score.reward
        else:
            self._num_faults += 1
            self._faults += [f"row {row.number}: {row.fault}"] if len(self._faults) < _FAULTS_NAMED else []

    @property
    def num_scored(self) -> int:
        return self.outcomes.total()

    @property
    def mean_reward(self) -> float:
        return self._total_reward / max(1, self.num_scored)

    def lines(self) -> list[str]:
        """The first bad rows, each with its fault, then all figures in one line."""
        shares = ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common())
        whole = f"{self.num_scored} completions, mean reward {self.mean_reward:.4f}: {shares or 'none'}"
        return [*self.faults(), f"{whole}; {self._num_faults} bad rows"]

    def faults(self) -> list[str]:
        """The first rows that could not be used, and how many more there are."""
        more = self._num_faults - len(self._faults)
        return [*self._faults, f"and {more} more bad rows"] if more else list(self._faults)


def score_file(file: Path, recipe_file: Path | None, overrides: Sequence[str], out: Path | None) -> None:
    """Score every row of a JSONL file; a bad row is named and passed over (see `read_completions` for columns).

    Some hundred rows are written at a time, while the next ones are already being scored; a run that is interrupted
    keeps what is written. The summary goes to stderr, where it does not mix with rows.

    Exits with code 1, after all rows, when a reward has failed on any of them.
    """
    require_file(file)
    recipe = load_named_recipe(recipe_file, overrides)
    needed = columns_needed(rewards_of(recipe))
    summary = Summary()
    with (
        open_row_scorer(recipe) as scorer,
        open_writer(out, file) as writer,
        progress(count_lines(file), out is None) as advance,
    ):
        for batch in submitted_ahead(batches(read_completions(file, needed)), [scorer]):
            rows = [row for group in batch for row in group]
            for row, score in zip(rows, scorer.collect(batch), strict=True):
                writer.write(_result(row, score))
                summary.add(row, score)
            writer.flush()
            advance(len(rows))
    print("\n".join(summary.lines()), file=sys.stderr)
    exit_if_any({"": scorer.failed})


def _result(row: Row, score: Score | None) -> dict[str, Any]:
    if score is None:
        return {**row.fields, "error": row.fault}
    return {
        **row.fields,
        "reward": score.reward,
        "parts": dict(score.parts),
        "outcome": score.outcome,
        "answer": score.answer,
        "reason": score.reason,
        "cpu_s": round(score.cpu_s, 6),
    }

"""What training did to the held-out sets: the first evaluation of a run against its last, for each source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from grpo.evaluation.estimates import Interval, PairedChange, paired_change
from grpo.row_values import Row, keys_of, number

_ORDER = ("accuracy", "pass_at", "maj_at", "format_frac", "length_tokens")
_BESIDE_OTHERS = ("accuracy_low", "accuracy_high", "num_problems")
"""Metrics that are shown with another one and have no line of their own."""

Verdicts = dict[str, dict[int, bool]]
"""Whether each completion of a problem was right, by the problem's id and the completion's index."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The accuracy at one step, with its interval where the row has one."""

    step: int
    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Change:
    """One metric before and after; `before` is None where it was measured only once."""

    metric: str
    before: float | None
    after: float

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share of 1, shown in percent."""
        return self.metric != "length_tokens"

    @property
    def label(self) -> str:
        """The metric in words: `pass_at_4` is `pass@4`."""
        named = {"format_frac": "right format", "failed_frac": "failed verdicts", "length_tokens": "length (tokens)"}
        return named.get(self.metric, self.metric.replace("_at_", "@"))


@dataclass(frozen=True, slots=True)
class SourceChange:
    """All metrics of one source, its accuracy at every evaluation, and what its problems say one by one.

    `paired` is None where there is only one evaluation, or where the verdicts of the two were not kept.
    """

    source: str
    num_problems: int | None
    accuracy: tuple[Measured, ...]
    changes: tuple[Change, ...]
    paired: PairedChange | None


def first_and_last(rows: Sequence[Row]) -> tuple[int, ...]:
    """The steps of the first and of the last evaluation in rows of metrics: two, or one, or none."""
    keys = [key for key in keys_of(rows) if _source_of(key)]
    steps = [row["step"] for row in rows if any(key in row for key in keys)]
    return (min(steps), max(steps)) if len(set(steps)) > 1 else tuple(steps)


def source_changes(rows: Sequence[Row], eval_rows: Iterable[Row] = ()) -> list[SourceChange]:
    """Compare the first with the last evaluation of each source, in the order of first appearance.

    `rows` are those of metrics, `eval_rows` those of the held-out completions at the steps of `first_and_last`.
    """
    keys = [key for key in keys_of(rows) if _source_of(key)]
    verdicts = _verdicts(eval_rows)
    found = [_source_change(source, rows, keys, verdicts) for source in dict.fromkeys(map(_source_of, keys))]
    return [change for change in found if change.changes]


def told(paired: PairedChange) -> str:
    """How many problems changed sides and what follows: whether this is more than chance, and by which test."""
    counts = f"{len(paired.gained):,} of {paired.num_problems:,} problems gained, {len(paired.lost):,} lost."
    if not paired.has_moved:
        return f"{counts} Nothing shows that training changed anything here."
    if paired.p_value is not None:
        why = f"p = {paired.p_value:.2g}, exact McNemar test"
    else:
        why = f"the paired 95% interval {'excludes' if paired.is_significant else 'holds'} 0"
    what = "This is more than chance" if paired.is_significant else "Chance alone may have done this"
    return f"{counts} {what} ({why})."


def _source_of(key: str) -> str:
    """The source that a metric's name speaks of; empty where it is no metric of an evaluation."""
    return key.removeprefix("eval/").rpartition("/")[0] if key.startswith("eval/") else ""


def _verdicts(eval_rows: Iterable[Row]) -> dict[tuple[str, int], Verdicts]:
    found: dict[tuple[str, int], Verdicts] = {}
    for row in eval_rows:
        problems = found.setdefault((str(row.get("source")), row["step"]), {})
        problems.setdefault(str(row.get("problem_id")), {})[row.get("index", 0)] = row.get("outcome") == "correct"
    return found


def _source_change(
    source: str, rows: Sequence[Row], keys: Sequence[str], verdicts: Mapping[tuple[str, int], Verdicts]
) -> SourceChange:
    own = {key.rpartition("/")[2] for key in keys if _source_of(key) == source}
    metrics = sorted(own - set(_BESIDE_OTHERS), key=_place)
    counts = _values(rows, f"eval/{source}/num_problems")
    accuracy = _accuracy(source, rows)
    return SourceChange(
        source=source,
        num_problems=int(counts[-1]) if counts else None,
        accuracy=accuracy,
        changes=tuple(change for metric in metrics if (change := _change(source, metric, rows)) is not None),
        paired=_paired(source, accuracy, verdicts),
    )


def _paired(
    source: str, accuracy: Sequence[Measured], verdicts: Mapping[tuple[str, int], Verdicts]
) -> PairedChange | None:
    if len(accuracy) < 2:
        return None
    sides = [verdicts.get((source, accuracy[place].step), {}) for place in (0, -1)]
    before, after = ({name: list(flags.values()) for name, flags in side.items()} for side in sides)
    return paired_change(before, after)


def _place(metric: str) -> tuple[int, int, str]:
    """Sort key: the known metrics in a fixed order, then pass@k and maj@k by k, then the others."""
    rank = next((i for i, start in enumerate(_ORDER) if metric.startswith(start)), len(_ORDER))
    digits = re.search(r"\d+$", metric)
    return rank, int(digits[0]) if digits else 0, metric


def _change(source: str, metric: str, rows: Sequence[Row]) -> Change | None:
    values = _values(rows, f"eval/{source}/{metric}")
    if not values:
        return None
    return Change(metric, values[0] if len(values) > 1 else None, values[-1])


def _values(rows: Sequence[Row], key: str) -> list[float]:
    return [value for row in rows if (value := number(row, key)) is not None]


def _accuracy(source: str, rows: Sequence[Row]) -> tuple[Measured, ...]:
    start = f"eval/{source}/accuracy"
    return tuple(
        Measured(row["step"], value, _interval(row, start, value))
        for row in rows
        if (value := number(row, start)) is not None
    )


def _interval(row: Row, start: str, value: float) -> Interval | None:
    low, high = number(row, f"{start}_low"), number(row, f"{start}_high")
    return None if low is None or high is None else Interval(value, low, high)

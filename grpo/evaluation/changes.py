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

_COMPARABLE = ("eval.every", "eval.sources")
"""Settings of `eval` that do not decide how a problem is answered. What another source asks shows in its problems."""

Problem = tuple[str, str, str, str]
"""Id, question, gold and checker. The id alone is not enough: that of a generated problem is its number."""
Verdicts = dict[Problem, dict[int, bool]]
"""Whether each completion of a problem was right, by the problem and the completion's index."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The accuracy at one step, with its interval where the row has one."""

    step: int
    value: float
    interval: Interval | None
    time_unix: float | None = None
    """When the row was written; None where it does not say."""


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

    `paired` is None where there is only one evaluation, where the verdicts of the two were not kept, and where the two
    cannot be compared; `incomparable` then says why.
    """

    source: str
    num_problems: int | None
    accuracy: tuple[Measured, ...]
    changes: tuple[Change, ...]
    paired: PairedChange | None
    incomparable: str = ""

    @property
    def told(self) -> str:
        """What follows from the two evaluations, or why nothing does; empty where there is nothing to say."""
        return told(self.paired) if self.paired else self.incomparable


def first_and_last(rows: Sequence[Row]) -> tuple[int, ...]:
    """The steps of the first and of the last evaluation in rows of metrics: two, or one, or none."""
    keys = [key for key in keys_of(rows) if _source_of(key)]
    steps = [row["step"] for row in rows if any(key in row for key in keys)]
    return (min(steps), max(steps)) if len(set(steps)) > 1 else tuple(steps)


def source_changes(
    rows: Sequence[Row], eval_rows: Iterable[Row] = (), recipe_changes: Iterable[Row] = ()
) -> list[SourceChange]:
    """Compare the first with the last evaluation of each source, in the order of first appearance.

    `rows` are those of metrics, `eval_rows` those of the held-out completions at the steps of `first_and_last`, and
    `recipe_changes` those of what was changed when the run went on (step, time_unix, key, old, new), in their order.
    """
    keys = [key for key in keys_of(rows) if _source_of(key)]
    verdicts, settings = _verdicts(eval_rows), _settings_history(recipe_changes)
    found = [_source_change(source, rows, keys, verdicts, settings) for source in dict.fromkeys(map(_source_of, keys))]
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
        problems.setdefault(_problem(row), {})[row.get("index", 0)] = row.get("outcome") == "correct"
    return found


def _problem(row: Row) -> Problem:
    name, question, gold, checker = (str(row.get(key)) for key in ("problem_id", "question", "gold", "checker"))
    return name, question, gold, checker


def _settings_history(recipe_changes: Iterable[Row]) -> dict[str, list[Row]]:
    """The changes of each setting that decides how held-out problems are answered, the oldest first."""
    found: dict[str, list[Row]] = {}
    for row in recipe_changes:
        key = str(row.get("key"))
        if key.startswith("eval.") and not any(f"{key}.".startswith(f"{free}.") for free in _COMPARABLE):
            found.setdefault(key, []).append(row)
    return found


def _source_change(
    source: str,
    rows: Sequence[Row],
    keys: Sequence[str],
    verdicts: Mapping[tuple[str, int], Verdicts],
    settings: Mapping[str, Sequence[Row]],
) -> SourceChange:
    own = {key.rpartition("/")[2] for key in keys if _source_of(key) == source}
    metrics = sorted(own - set(_BESIDE_OTHERS), key=_place)
    counts = _values(rows, f"eval/{source}/num_problems")
    accuracy = _accuracy(source, rows)
    paired, incomparable = _paired(source, accuracy, verdicts, settings)
    return SourceChange(
        source=source,
        num_problems=int(counts[-1]) if counts else None,
        accuracy=accuracy,
        changes=tuple(change for metric in metrics if (change := _change(source, metric, rows)) is not None),
        paired=paired,
        incomparable=incomparable,
    )


def _paired(
    source: str,
    accuracy: Sequence[Measured],
    verdicts: Mapping[tuple[str, int], Verdicts],
    settings: Mapping[str, Sequence[Row]],
) -> tuple[PairedChange | None, str]:
    """The first and the last evaluation problem by problem, or in words why they cannot be compared."""
    if len(accuracy) < 2:
        return None, ""
    first, last = accuracy[0], accuracy[-1]
    if changed := _changed_settings(first, last, settings):
        return None, _incomparable(first, last, ", ".join(changed))
    before, after = (verdicts.get((source, one.step), {}) for one in (first, last))
    if not before or not after:
        return None, ""
    if before.keys() != after.keys():
        return None, _incomparable(first, last, "they do not hold the same problems")
    return paired_change(_by_id(before), _by_id(after)), ""


def _by_id(verdicts: Verdicts) -> dict[str, list[bool]]:
    return {problem[0]: list(flags.values()) for problem, flags in verdicts.items()}


def _incomparable(first: Measured, last: Measured, why: str) -> str:
    steps = f"step {first.step:,} and step {last.step:,}"
    return f"The evaluation was changed between {steps} ({why}): the two cannot be compared."


def _changed_settings(first: Measured, last: Measured, settings: Mapping[str, Sequence[Row]]) -> list[str]:
    """Each setting that had another value at the last evaluation than at the first, in words."""
    values = {key: (_value_at(first, history), _value_at(last, history)) for key, history in settings.items()}
    return [f"{key} was {old}, then {new}" for key, (old, new) in values.items() if old != new]


def _value_at(measured: Measured, history: Sequence[Row]) -> object:
    """The value that a setting had when a row was measured, by its changes."""
    made = [change for change in history if _is_before(change, measured)]
    return made[-1].get("new") if made else history[0].get("old")


def _is_before(change: Row, measured: Measured) -> bool:
    """By the clock where both know it, since a run may go back to an earlier step; else by the step."""
    changed_at = number(change, "time_unix")
    if changed_at is None or measured.time_unix is None:
        return bool(change["step"] <= measured.step)
    return changed_at <= measured.time_unix


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
        Measured(row["step"], value, _interval(row, start, value), number(row, "time_unix"))
        for row in rows
        if (value := number(row, start)) is not None
    )


def _interval(row: Row, start: str, value: float) -> Interval | None:
    low, high = number(row, f"{start}_low"), number(row, f"{start}_high")
    return None if low is None or high is None else Interval(value, low, high)

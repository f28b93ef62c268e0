"""What evaluation says: the first measurement against the last one, for each source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from grpo.report.read import Row, number

_ORDER = ("accuracy", "pass_at", "maj_at", "format_frac", "length_tokens")
_BOUNDS = ("accuracy_low", "accuracy_high", "num_problems")


@dataclass(frozen=True, slots=True)
class Interval:
    """An accuracy and the ends of its 95% interval, where they were measured."""

    step: int
    value: float
    low: float | None = None
    high: float | None = None

    def apart_from(self, other: Interval) -> bool | None:
        """Whether the two intervals do not overlap; None where one has no interval."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return None
        return self.low > other.high or other.low > self.high


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
    """All metrics of one source, and its accuracy at every evaluation, by step."""

    source: str
    num_problems: int | None
    accuracy: tuple[Interval, ...]
    changes: tuple[Change, ...]


def source_changes(rows: Sequence[Row]) -> list[SourceChange]:
    """Compare the first with the last evaluation of each source, in the order of first appearance."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("eval/") and key.count("/") > 1)
    sources = dict.fromkeys(key[5:].rpartition("/")[0] for key in keys)
    found = [_source_change(source, rows, [key for key in keys if _belongs(key, source)]) for source in sources]
    return [change for change in found if change.changes]


def _belongs(key: str, source: str) -> bool:
    return key.rpartition("/")[0] == f"eval/{source}"


def _source_change(source: str, rows: Sequence[Row], keys: Sequence[str]) -> SourceChange:
    metrics = sorted({key.rpartition("/")[2] for key in keys} - set(_BOUNDS), key=_place)
    changes = [change for metric in metrics if (change := _change(source, metric, rows)) is not None]
    counts = _values(rows, f"eval/{source}/num_problems")
    return SourceChange(
        source=source,
        num_problems=int(counts[-1]) if counts else None,
        accuracy=_accuracy(source, rows),
        changes=tuple(changes),
    )


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


def _accuracy(source: str, rows: Sequence[Row]) -> tuple[Interval, ...]:
    start = f"eval/{source}/accuracy"
    return tuple(
        Interval(row["step"], value, number(row, f"{start}_low"), number(row, f"{start}_high"))
        for row in rows
        if (value := number(row, start)) is not None
    )

"""Curves out of metric rows: what to draw, smoothed and thinned to what the pixels can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from grpo.report.read import Row, number

Bounds = tuple[float, float]

_SMOOTH_FROM = 12  # fewer points than this are drawn as they are


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric by step. `num_empty` counts the rows that name the metric without a finite value."""

    name: str
    colour: int
    steps: tuple[int, ...]
    values: tuple[float, ...]
    bounds: tuple[Bounds | None, ...] = ()
    num_empty: int = 0
    may_smooth: bool = True

    @property
    def is_noisy(self) -> bool:
        """Whether the curve is drawn as a faint raw line with a smooth one above it."""
        return self.may_smooth and not self.bounds and len(self.values) >= _SMOOTH_FROM

    @property
    def smooth(self) -> list[float]:
        """The values under a centred moving average, or unchanged for a short curve."""
        return moving_average(self.values, math.isqrt(len(self.values))) if self.is_noisy else list(self.values)

    @property
    def extent(self) -> list[float]:
        """Every value that the axis has to hold, ends of the intervals included."""
        return [*self.values, *(end for pair in self.bounds if pair for end in pair)]


def curve(rows: Sequence[Row], key: str, name: str, colour: int, *, may_smooth: bool = True) -> Curve | None:
    """The curve of one metric, or None where no row has a finite value of it."""
    present = [(row["step"], number(row, key)) for row in rows if key in row]
    points = [(step, value) for step, value in present if value is not None]
    if not points:
        return None
    steps, values = zip(*points, strict=True)
    return Curve(name, colour, steps, values, num_empty=len(present) - len(points), may_smooth=may_smooth)


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """The mean over `window // 2` values on either side of each, fewer at the two ends."""
    half = window // 2
    totals = [0.0]
    for value in values:
        totals.append(totals[-1] + value)
    spans = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(totals[end] - totals[start]) / (end - start) for start, end in spans]


def buckets(count: int, limit: int) -> list[range]:
    """Cut `count` points into at most `limit` neighbouring runs of equal size, the last one smaller."""
    size = -(-count // limit)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def extremes(values: Sequence[float], limit: int) -> list[int]:
    """Positions to draw so that a line through them has the outline of all `values`.

    Of each of `limit / 2` buckets the lowest and the highest value stay, in their order.
    """
    if len(values) <= limit:
        return list(range(len(values)))
    kept = [
        {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
        for part in buckets(len(values), limit // 2)
    ]
    return [position for pair in kept for position in sorted(pair)]


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(values) / len(values)

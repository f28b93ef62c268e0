"""Curves out of rows of metrics: smoothed, and thinned to what a screen can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from grpo.evaluation.estimates import Interval
from grpo.row_values import Row, number

_SMOOTH_FROM = 12
"""Shorter curves are drawn as they are."""


@dataclass(frozen=True)
class Curve:
    """One metric by step. `num_empty` counts the rows that name the metric without a finite value.

    `is_exact` says that it is set and not measured, so that there is nothing to smooth.
    """

    name: str
    colour: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    intervals: tuple[Interval | None, ...] = ()
    num_empty: int = 0
    is_exact: bool = False

    @property
    def is_noisy(self) -> bool:
        """Whether the curve is drawn as a faint line of single steps with a smooth one above it."""
        return not (self.is_exact or self.intervals) and len(self.values) >= _SMOOTH_FROM

    @cached_property
    def smooth(self) -> list[float]:
        """The values under a centred moving average, or unchanged for a short curve."""
        return moving_average(self.values, math.isqrt(len(self.values))) if self.is_noisy else list(self.values)


def curve(rows: Sequence[Row], key: str, name: str, colour: str) -> Curve | None:
    """The curve of one metric, or None where no row has a finite value of it."""
    present = [row for row in rows if number(row, key) is not None]
    if not present:
        return None
    steps, values = tuple(row["step"] for row in present), tuple(float(row[key]) for row in present)
    return Curve(name, colour, steps, values, num_empty=sum(key in row for row in rows) - len(present))


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """The mean over `window // 2` values on either side of each, fewer at the two ends."""
    half, places = window // 2, np.arange(len(values))
    start, end = np.maximum(0, places - half), np.minimum(len(values), places + half + 1)
    totals = np.concatenate([[0.0], np.cumsum(values)])
    means: list[float] = ((totals[end] - totals[start]) / (end - start)).tolist()
    return means


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
    parts = buckets(len(values), limit // 2)
    return sorted({pick(part, key=values.__getitem__) for part in parts for pick in (min, max)})

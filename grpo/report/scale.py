"""Axes: from values to pixels, where the ticks lie and what is written at them."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MINUS = "\u2212"
_LOG_FROM = 100.0  # a span of two powers of ten is drawn on a logarithmic axis, where that is allowed


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight or logarithmic map of `low`..`high` to the pixels `start`..`end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of `value`, never outside `start`..`end`."""
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, max(value, self.low)))
        share = (at - low) / (high - low)
        return self.start + min(share, 1.0) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) that enclose `low`..`high`."""
    span = high - low or count
    gap = _round_gap(span / count)
    first, last = math.floor(low / gap + 1e-9), math.ceil(high / gap - 1e-9)
    return [round(i * gap, 12) for i in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """The powers of ten that enclose `low`..`high`, thinned to five at most."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    stride = max(1, math.ceil((last - first) / 4))
    return [10.0**power for power in range(first, max(last, first + 1) + stride, stride)]


def value_scale(values: list[float], start: float, end: float, may_log: bool) -> tuple[Scale, list[float]]:
    """The vertical axis for `values`: logarithmic where allowed and useful, else from or through zero."""
    if may_log and min(values) > 0 and max(values) / min(values) >= _LOG_FROM:
        at = log_ticks(min(values), max(values))
        return Scale(at[0], at[-1], start, end, log=True), at
    at = ticks(min(0.0, *values), max(0.0, *values))
    return Scale(at[0], at[-1], start, end), at


def step_scale(first: int, last: int, start: float, end: float) -> tuple[Scale, list[float]]:
    """The horizontal axis from the first to the last step, with ticks at whole steps inside of it."""
    if first == last:
        return Scale(first - 0.5, last + 0.5, start, end), [float(first)]
    inside = [tick for tick in ticks(first, last, 5) if first <= tick <= last and tick == int(tick)]
    return Scale(first, last, start, end), inside


def signed(value: float, percent: bool = False) -> str:
    """A change, with its sign; of a share in percentage points."""
    size = f"{100 * abs(value):.1f} points" if percent else shown(abs(value))
    return ("+" if value >= 0 else _MINUS) + size


def shown(value: float, percent: bool = False) -> str:
    """`value` as it is written in the report: about three digits, with a real minus sign."""
    return _unsigned(100 * abs(value) if percent else abs(value), percent, _MINUS if value < 0 else "")


def tick_label(value: float, percent: bool = False) -> str:
    """`value` as short as it can be said at an axis: 25%, 15k, 0.02, 1e-5."""
    size = abs(value) * (100 if percent else 1)
    if size >= 10_000:
        text = f"{size / 1000:g}k"
    elif size and size < 0.001:
        text = _scientific(size, 0)
    else:
        text = f"{size:.4g}"
    return f"{_MINUS if value < 0 else ''}{text}{'%' if percent else ''}"


def _unsigned(size: float, percent: bool, sign: str) -> str:
    if percent:
        return f"{sign}{size:.1f}%"
    if size == 0:
        return "0"
    if size < 0.001:
        return sign + _scientific(size, 1)
    places = next((places for limit, places in ((1, 3), (10, 2), (100, 1)) if size < limit), 0)
    return f"{sign}{size:,.{places}f}"


def _scientific(size: float, places: int) -> str:
    digits, power = f"{size:.{places}e}".split("e")
    return f"{digits}e{int(power)}"


def _round_gap(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= 0.75 * rough)

"""GenerationPlan curves and stacked bars as SVG, each a figure with a legend and the values for the read-out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from grpo.report.curves import Curve, buckets, extremes, mean
from grpo.report.scale import Scale, shown, step_scale, tick_label, value_scale

WIDTH, HEIGHT = 360, 212
LEFT, RIGHT, TOP, BOTTOM = 46, 346, 22, 180
_MAX_POINTS = 2 * (RIGHT - LEFT)
_MAX_READINGS = 200
_MAX_BARS = 60
_MAX_MARKERS = 12

Reading = tuple[float, float | None, str, str]  # pixels right and down, the step, the value


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart to draw: a title, the unit of its vertical axis, and how values are shown."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    percent: bool = False
    may_log: bool = False
    stacked: bool = False


def figure(chart: Chart) -> str:
    """The chart as an HTML figure: readable as it stands, with a read-out where scripts may run."""
    return _stacked(chart) if chart.stacked else _lines(chart)


def path(points: Iterable[tuple[float, float]]) -> str:
    """The `d` of a line through `points`, to a tenth of a pixel."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _lines(chart: Chart) -> str:
    first = min(curve.steps[0] for curve in chart.curves)
    last = max(curve.steps[-1] for curve in chart.curves)
    x, x_ticks = step_scale(first, last, LEFT, RIGHT)
    y, y_ticks = value_scale([v for curve in chart.curves for v in curve.extent], BOTTOM, TOP, chart.may_log)
    layers = [draw(curve, x, y) for draw in (_raw_line, _line) for curve in reversed(chart.curves)]
    ends = [curve.smooth[-1] for curve in chart.curves]
    readings = [_line_readings(curve, x, y, chart.percent) for curve in chart.curves]
    return _assemble(chart, _axes(chart, x, y, x_ticks, y_ticks) + "".join(layers), ends, readings)


def _raw_line(curve: Curve, x: Scale, y: Scale) -> str:
    """The steps themselves, faint, below the smooth lines of all curves; nothing for a short curve."""
    if not curve.is_noisy:
        return ""
    kept = extremes(curve.values, _MAX_POINTS)
    points = [(x(curve.steps[i]), y(curve.values[i])) for i in kept]
    dense = " dense" if len(curve.values) > _MAX_POINTS else ""
    return f'<path class="faint{dense} c{curve.colour}" d="{path(points)}"/>'


def _line(curve: Curve, x: Scale, y: Scale) -> str:
    smooth = curve.smooth
    points = [(x(curve.steps[i]), y(smooth[i])) for i in extremes(smooth, _MAX_POINTS)]
    ends = zip(curve.steps, curve.bounds, strict=False)
    whiskers = "".join(_whisker(x(step), pair, y) for step, pair in ends if pair)
    return (
        f'<g class="c{curve.colour}">'
        + (f'<path class="whisker" d="{whiskers}"/>' if whiskers else "")
        + f'<path class="line" d="{path(points)}"/>'
        + (_markers(points) if len(points) <= _MAX_MARKERS or whiskers else "")
        + "</g>"
    )


def _whisker(at: float, ends: tuple[float, float], y: Scale) -> str:
    low, high = y(ends[0]), y(ends[1])
    return f"M{at:.1f} {low:.1f}V{high:.1f}M{at - 3:.1f} {low:.1f}h6M{at - 3:.1f} {high:.1f}h6"


def _markers(points: Sequence[tuple[float, float]]) -> str:
    return "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in points)


def _line_readings(curve: Curve, x: Scale, y: Scale, percent: bool) -> list[Reading]:
    """The values to read out: of a long curve the means over neighbouring steps."""
    found: list[Reading] = []
    for part in buckets(len(curve.steps), _MAX_READINGS):
        value, middle = mean([curve.values[i] for i in part]), curve.steps[part[len(part) // 2]]
        text = shown(value, percent)
        if curve.bounds and (pair := curve.bounds[part[0]]):
            text += f" ({shown(pair[0], percent)} to {shown(pair[1], percent)})"
        found.append((x(middle), y(value), _span(curve, part), text))
    return found


def _span(curve: Curve, part: range) -> str:
    first, last = curve.steps[part[0]], curve.steps[part[-1]]
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}, mean"


def _stacked(chart: Chart) -> str:
    """Bars on the steps of the first curve, which all curves share; many steps share a bar as their mean."""
    base = chart.curves[0]
    parts = buckets(len(base.steps), _MAX_BARS)
    layers = [[mean([curve.values[i] for i in part]) for part in parts] for curve in chart.curves]
    tops = _running_totals(layers)
    x = Scale(base.steps[0] - 0.5, base.steps[-1] + 0.5, LEFT, RIGHT)
    x_ticks = step_scale(base.steps[0], base.steps[-1], LEFT, RIGHT)[1]
    y, y_ticks = value_scale([1.0] if chart.percent else tops[-1], BOTTOM, TOP, may_log=False)
    edges = [(x(base.steps[part[0]] - 0.5), x(base.steps[part[-1]] + 0.5)) for part in parts]
    drawn = "".join(
        f'<path class="bar c{curve.colour}" d="{_bars(edges, low, high, y)}"/>'
        for curve, low, high in zip(chart.curves, [[0.0] * len(parts), *tops], tops, strict=False)
    )
    spans = [_span(base, part) for part in parts]
    readings: list[list[Reading]] = [
        [
            ((a + b) / 2, None, span, shown(v, chart.percent))
            for (a, b), span, v in zip(edges, spans, layer, strict=True)
        ]
        for layer in layers
    ]
    ends = [mean(curve.values) for curve in chart.curves]
    return _assemble(chart, _axes(chart, x, y, x_ticks, y_ticks) + drawn, ends, readings)


def _running_totals(layers: Sequence[Sequence[float]]) -> list[list[float]]:
    tops: list[list[float]] = []
    for layer in layers:
        below = tops[-1] if tops else [0.0] * len(layer)
        tops.append([low + value for low, value in zip(below, layer, strict=True)])
    return tops


def _bars(edges: Sequence[tuple[float, float]], low: Sequence[float], high: Sequence[float], y: Scale) -> str:
    boxes = zip(edges, low, high, strict=True)
    return "".join(
        f"M{left + 0.3:.1f} {y(bottom):.1f}H{right - 0.3:.1f}V{y(top):.1f}H{left + 0.3:.1f}z"
        for (left, right), bottom, top in boxes
        if y(bottom) - y(top) > 0.05
    )


def _axes(chart: Chart, x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
    grid = "".join(f"M{LEFT} {y(at):.1f}H{RIGHT}" for at in y_ticks)
    rows = "".join(
        f'<text x="{LEFT - 6}" y="{y(at) + 3.5:.1f}" class="end">{tick_label(at, chart.percent)}</text>'
        for at in y_ticks
    )
    columns = "".join(f'<text x="{x(at):.1f}" y="{BOTTOM + 15}" class="mid">{tick_label(at)}</text>' for at in x_ticks)
    return (
        f'<path class="grid" d="{grid}"/>{rows}{columns}'
        f'<text x="2" y="10" class="unit">{escape(chart.unit)}</text>'
        f'<text x="{RIGHT}" y="{HEIGHT - 4}" class="unit end">step</text>'
    )


def _assemble(chart: Chart, inside: str, ends: Sequence[float], readings: Sequence[Sequence[Reading]]) -> str:
    told = "; ".join(
        f"{curve.name} {shown(curve.smooth[0], chart.percent)} to {shown(curve.smooth[-1], chart.percent)}"
        for curve in chart.curves
    )
    title = escape(f"{chart.title} by step, first to last: {told}")
    return (
        f'<figure class="card chart"><figcaption><h3>{escape(chart.title)}</h3></figcaption>'
        f"{_legend(chart, ends)}"
        f'<div class="plot"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}" tabindex="0">'
        f"<title>{title}</title>{inside}</svg></div>"
        f'<script type="application/json">{_data(chart, readings)}</script></figure>'
    )


def _legend(chart: Chart, ends: Sequence[float]) -> str:
    told = "mean" if chart.stacked else "last"
    items = "".join(
        f'<li class="c{curve.colour}"><i></i>{escape(curve.name)} '
        f'<b title="{told}">{shown(end, chart.percent)}</b>{_empty(curve)}</li>'
        for curve, end in zip(chart.curves, ends, strict=True)
    )
    return f'<ul class="legend">{items}</ul>'


def _empty(curve: Curve) -> str:
    return f" <em>no value at {curve.num_empty:,} step(s)</em>" if curve.num_empty else ""


def _data(chart: Chart, readings: Sequence[Sequence[Reading]]) -> str:
    """The readings as JSON that cannot end the script element it stands in."""
    series: list[dict[str, Any]] = [
        {"name": curve.name, "colour": curve.colour, "points": [_rounded(point) for point in points]}
        for curve, points in zip(chart.curves, readings, strict=True)
    ]
    return json.dumps(series, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _rounded(point: Reading) -> list[Any]:
    x, y, step, value = point
    return [round(x, 1), None if y is None else round(y, 1), step, value]

"""Draws curves and stacked bars with Bokeh: one plot for each chart, all with the same horizontal axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from bokeh.models import (
    BasicTickFormatter,
    ColumnDataSource,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
    TeeHead,
    Whisker,
)
from bokeh.plotting import figure
from bokeh.themes import Theme

from grpo.report.colours import CARD, QUIET, RULE
from grpo.report.curves import Curve, buckets, extremes
from grpo.report.formats import bounds, shown

_MAX_POINTS = 1000
_MAX_READINGS = 200
_MAX_BARS = 60
_MAX_MARKERS = 12
_LOG_FROM = 100.0
_SMALL = 0.001

_AXIS = {
    "axis_line_color": RULE,
    "major_tick_line_color": None,
    "minor_tick_line_color": None,
    "major_label_text_color": QUIET,
    "axis_label_text_color": QUIET,
    "axis_label_text_font_style": "normal",
    "axis_label_text_font_size": "11px",
}
_PLOT = {"background_fill_color": CARD, "border_fill_color": CARD, "outline_line_color": None}
THEME = Theme(json={"attrs": {"Plot": _PLOT, "Axis": _AXIS, "Grid": {"grid_line_color": RULE}}})


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw: a title, the unit of the vertical axis, and how values are shown."""

    title: str
    unit: str
    curves: Sequence[Curve]
    percent: bool = False
    may_log: bool = False
    stacked: bool = False

    @property
    def ends(self) -> list[float]:
        """What stands beside each curve's name: its last value, or the mean over the run for bars."""
        return [fmean(curve.values) if self.stacked else curve.smooth[-1] for curve in self.curves]

    @property
    def spoken(self) -> str:
        """The chart in one sentence, for screen readers."""
        told = (
            f"{curve.name} {shown(curve.smooth[0], self.percent)} to {shown(curve.smooth[-1], self.percent)}"
            for curve in self.curves
        )
        return f"{self.title} by step, first to last: {'; '.join(told)}"


def plots(charts: Sequence[Chart]) -> list[figure]:
    """A plot for each chart. They share one axis of steps, so that zooming in one of them zooms in all."""
    steps = [step for chart in charts for curve in chart.curves for step in curve.steps]
    first, last = min(steps, default=0), max(steps, default=1)
    margin = max(0.5, 0.01 * (last - first))
    axis = Range1d(first - margin, last + margin, bounds="auto")
    return [_plot(chart, axis) for chart in charts]


def _plot(chart: Chart, axis: Range1d) -> figure:
    low, high, kind = value_range(chart)
    tools = {"tools": "box_zoom,xpan,reset", "active_drag": "box_zoom", "toolbar_location": "above"}
    axes = {"x_range": axis, "y_range": Range1d(low, high), "y_axis_type": kind, "y_axis_label": chart.unit}
    plot = figure(height=230, sizing_mode="stretch_width", x_axis_label="step", **axes, **tools)
    plot.toolbar.autohide, plot.toolbar.logo, plot.toolbar_inner = True, None, True
    plot.xgrid.visible, plot.xaxis.ticker.min_interval = False, 1
    if chart.percent:
        plot.yaxis.formatter = NumeralTickFormatter(format="0.[0]%")
    elif kind == "linear" and high < _SMALL:
        plot.yaxis.formatter = BasicTickFormatter(precision=1)
    if chart.stacked:
        _draw_bars(plot, chart)
    for curve in () if chart.stacked else reversed(chart.curves):
        _draw_curve(plot, curve)
    _add_read_out(plot, chart, at=low)
    return plot


def value_range(chart: Chart) -> tuple[float, float, str]:
    """The ends of the vertical axis and its kind: logarithmic where allowed and useful, else linear and with zero."""
    if chart.stacked:
        tops = np.sum([curve.values for curve in chart.curves], axis=0)
        return 0.0, 1.0 if chart.percent else 1.05 * float(tops.max()), "linear"
    ends = [end for curve in chart.curves for one in curve.intervals if one for end in (one.low, one.high)]
    values = [*ends, *(value for curve in chart.curves for value in curve.values)]
    low, high = min(values), max(values)
    if chart.may_log and low > 0 and high / low >= _LOG_FROM:
        return low / 1.5, high * 1.5, "log"
    low, high = min(0.0, low), max(0.0, high)
    margin = 0.05 * (high - low)
    return (low - margin if low else 0.0), (high + margin if high > low else 1.0), "linear"


def _draw_curve(plot: figure, curve: Curve) -> None:
    """The single steps as a faint line and the moving average above it; where there are few points, as marks."""
    kept, smooth = extremes(curve.values, _MAX_POINTS), curve.smooth
    columns = {"raw": curve.values, "smooth": smooth}
    if curve.intervals:
        ends = [(math.nan, math.nan) if one is None else (one.low, one.high) for one in curve.intervals]
        columns |= {"low": [low for low, _ in ends], "high": [high for _, high in ends]}
    data = {name: np.array(values, np.float32)[kept] for name, values in columns.items()}
    source = ColumnDataSource({"step": np.array(curve.steps, np.int32)[kept], **data})
    style = {"source": source, "color": curve.colour}
    if curve.is_noisy:
        plot.line("step", "raw", alpha=0.3 if len(kept) < _MAX_POINTS else 0.15, **style)
    plot.line("step", "smooth", width=2, line_join="round", name=curve.name, **style)
    if curve.intervals or len(kept) <= _MAX_MARKERS:
        plot.scatter("step", "smooth", size=6, **style)
    if curve.intervals:
        ink = {"line_color": curve.colour, "line_alpha": 0.6}
        head = TeeHead(size=6, **ink)
        ends_of = {"base": "step", "lower": "low", "upper": "high", "lower_head": head, "upper_head": head}
        plot.add_layout(Whisker(source=source, **ends_of, **ink))


def _draw_bars(plot: figure, chart: Chart) -> None:
    """Bars on the steps that all curves share; many steps share a bar as their mean."""
    steps = chart.curves[0].steps
    parts = buckets(len(steps), _MAX_BARS)
    names = [f"part {i}" for i in range(len(chart.curves))]
    data = {
        name: np.array([fmean([curve.values[i] for i in part]) for part in parts], np.float32)
        for name, curve in zip(names, chart.curves, strict=True)
    }
    data["middle"] = np.array([(steps[part[0]] + steps[part[-1]]) / 2 for part in parts], np.float32)
    data["width"] = np.array([steps[part[-1]] - steps[part[0]] + 0.92 for part in parts], np.float32)
    colours = [curve.colour for curve in chart.curves]
    plot.vbar_stack(names, x="middle", width="width", color=colours, line_color=None, source=ColumnDataSource(data))


def _add_read_out(plot: figure, chart: Chart, at: float) -> None:
    """Show the values of all curves in one box under the pointer, which finds its step on an invisible line."""
    data = readings(chart)
    source = ColumnDataSource({**data, "at": [at] * len(data["step"])})
    unseen = plot.line("step", "at", source=source, color=QUIET, alpha=0)
    rows = [("", "@span"), *((curve.name, f"@{{value {i}}}") for i, curve in enumerate(chart.curves))]
    where = {"mode": "vline", "line_policy": "nearest", "point_policy": "follow_mouse"}
    plot.add_tools(HoverTool(renderers=[unseen], tooltips=rows, visible=False, **where))


def readings(chart: Chart) -> dict[str, list[float] | list[str]]:
    """What the box under the pointer says, by step; where there are many steps, means over neighbouring ones."""
    steps = sorted({step for curve in chart.curves for step in curve.steps})
    parts = [[steps[i] for i in part] for part in buckets(len(steps), _MAX_READINGS)]
    columns: dict[str, list[float] | list[str]] = {
        "step": [float(part[len(part) // 2]) for part in parts],
        "span": [_span(part) for part in parts],
    }
    for i, curve in enumerate(chart.curves):
        places = {step: place for place, step in enumerate(curve.steps)}
        found = ([places[step] for step in part if step in places] for part in parts)
        columns[f"value {i}"] = [_reading(curve, places, chart.percent) for places in found]
    return columns


def _span(part: Sequence[int]) -> str:
    return f"step {part[0]:,}" if len(part) == 1 else f"steps {part[0]:,} to {part[-1]:,}, mean"


def _reading(curve: Curve, places: Sequence[int], percent: bool) -> str:
    if not places:
        return "none"
    text = shown(fmean([curve.values[place] for place in places]), percent)
    interval = curve.intervals[places[0]] if curve.intervals else None
    return f"{text} ({bounds(interval)})" if interval else text

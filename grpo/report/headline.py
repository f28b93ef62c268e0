"""Did it learn: the numbers at the top of a report, and the tables of before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from grpo.report.charts import path
from grpo.report.curves import curve, extremes, mean
from grpo.report.evaluations import Change, Interval, SourceChange
from grpo.report.read import Row, number
from grpo.report.scale import Scale, shown, signed

_NUM_ENDS = 5
_MAX_TILES = 3


@dataclass(frozen=True, slots=True)
class Ends:
    """The mean of a metric over the first and over the last few steps of a run."""

    first: float
    last: float
    num_steps: int


def ends(rows: Sequence[Row], key: str) -> Ends | None:
    """Means over the first and the last five values, fewer where a run has less than ten."""
    values = [value for row in rows if (value := number(row, key)) is not None]
    if not values:
        return None
    count = max(1, min(_NUM_ENDS, len(values) // 2))
    return Ends(mean(values[:count]), mean(values[-count:]), count)


def verdict(sources: Sequence[SourceChange], training: Sequence[Row]) -> str:
    """One or two sentences that say whether the run learned."""
    measured = [source for source in sources if len(source.accuracy) > 1]
    if measured:
        return " ".join(_verdict(source) for source in measured[:_MAX_TILES])
    reward = ends(training, "reward/mean")
    told = "There is no pair of held-out evaluations to compare."
    if reward is None or len(training) < 2:
        return told
    return f"{told} The mean reward went from {shown(reward.first)} to {shown(reward.last)}."


def tiles(sources: Sequence[SourceChange], training: Sequence[Row]) -> str:
    """The headline numbers as HTML: held-out accuracy, reward, share of correct completions."""
    held_out = [_accuracy_tile(source) for source in sources[:_MAX_TILES] if source.accuracy]
    reward = _ends_tile("Mean reward", training, "reward/mean", percent=False)
    correct = _ends_tile("Correct in training", training, "outcome/correct_frac", percent=True)
    return "".join([*held_out, reward, correct])


def table(source: SourceChange) -> str:
    """One source's metrics before and after as an HTML table, with the change."""
    count = f" <small>{source.num_problems:,} problems</small>" if source.num_problems is not None else ""
    steps = [f"step {point.step:,}" for point in source.accuracy] or ["after"]
    before, after, change = (steps[0], steps[-1], "change") if len(steps) > 1 else ("", steps[0], "")
    body = "".join(_table_row(one, source) for one in source.changes)
    return (
        f'<div class="card"><h3>{escape(source.source)}{count}</h3><table><thead><tr><th></th>'
        f'<th scope="col">{before}</th><th scope="col">{after}</th><th scope="col">{change}</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _verdict(source: SourceChange) -> str:
    first, last = source.accuracy[0], source.accuracy[-1]
    size = f"{100 * abs(last.value - first.value):.1f} points"
    if last.value == first.value:
        return f"Held-out accuracy on {source.source} is unchanged."
    moved = "rose" if last.value > first.value else "fell"
    told = {
        True: "The 95% intervals do not overlap.",
        False: "The 95% intervals overlap, so this may be noise.",
        None: "",
    }[first.apart_from(last)]
    steps = f"from step {first.step:,} to step {last.step:,}"
    return f"Held-out accuracy on {source.source} {moved} by {size} {steps}. {told}"


def _accuracy_tile(source: SourceChange) -> str:
    first, last = source.accuracy[0], source.accuracy[-1]
    count = f" · {source.num_problems:,} problems" if source.num_problems is not None else ""
    measured = source.accuracy if len(source.accuracy) == 1 else (first, last)
    return _tile(
        f"Held-out accuracy · {source.source}",
        None if first is last else first.value,
        last.value,
        f"95% interval{count}",
        True,
        _whiskers(measured),
    )


def _ends_tile(name: str, training: Sequence[Row], key: str, percent: bool) -> str:
    found = ends(training, key)
    line = curve(training, key, name, 0)
    if found is None or line is None:
        return ""
    if len(line.values) == 1:
        return _tile(name, None, found.last, "one step", percent, "")
    some = "step" if found.num_steps == 1 else f"{found.num_steps} steps"
    return _tile(name, found.first, found.last, f"first {some} against last {some}", percent, _sparkline(line.smooth))


def _tile(name: str, before: float | None, after: float, note: str, percent: bool, picture: str) -> str:
    start = change = ""
    if before is not None:
        arrow = '<span class="arrow" role="img" aria-label="to">→</span>'
        start = f'<span class="from">{shown(before, percent)}</span> {arrow} '
        change = f'<span class="delta">{signed(after - before, percent)}</span>'
    return (
        f'<div class="card tile"><h2>{escape(name)}</h2>'
        f'<p class="big">{start}<b>{shown(after, percent)}</b></p>'
        f'{picture}<p class="note">{change}{escape(note)}</p></div>'
    )


def _whiskers(points: Sequence[Interval]) -> str:
    """Accuracies and their intervals on a line from 0 to 100%."""
    x = Scale(0, 1, 4, 296)
    marks = "".join(
        _whisker(point, x, 8 + 10 * i, "before" if i == 0 and len(points) > 1 else "after")
        for i, point in enumerate(points)
    )
    frame = '<path class="grid" d="M4 0V26M77 0V26M150 0V26M223 0V26M296 0V26"/>'
    return f'<svg class="mini" viewBox="0 0 300 26" aria-hidden="true">{frame}{marks}</svg>'


def _whisker(point: Interval, x: Scale, y: int, kind: str) -> str:
    low, high = point.low, point.high
    line = "" if low is None or high is None else f'<path d="M{x(low):.1f} {y}H{x(high):.1f}"/>'
    return f'<g class="{kind}">{line}<circle cx="{x(point.value):.1f}" cy="{y}" r="4"/></g>'


def _sparkline(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    x, y = Scale(0, max(1, len(values) - 1), 3, 297), Scale(low, high if high > low else low + 1, 23, 3)
    points = [(x(i), y(values[i])) for i in extremes(values, 300)]
    frame = '<svg class="mini" viewBox="0 0 300 26" preserveAspectRatio="none" aria-hidden="true">'
    return f'{frame}<path class="spark" d="{path(points)}"/></svg>'


def _table_row(change: Change, source: SourceChange) -> str:
    before = "" if change.before is None else shown(change.before, change.is_share)
    delta = "" if change.before is None else signed(change.after - change.before, change.is_share)
    low, high = ("", "")
    if change.metric == "accuracy":
        low, high = _interval(source.accuracy[0]) if before else "", _interval(source.accuracy[-1])
    return (
        f'<tr><th scope="row">{escape(change.label)}</th><td>{before}{low}</td>'
        f"<td><b>{shown(change.after, change.is_share)}</b>{high}</td><td>{delta}</td></tr>"
    )


def _interval(point: Interval) -> str:
    if point.low is None or point.high is None:
        return ""
    return f"<small>{100 * point.low:.1f} to {100 * point.high:.1f}</small>"

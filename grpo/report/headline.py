"""What stands at the top of a report: what was trained, and whether it learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import fmean

from grpo.evaluation.changes import SourceChange
from grpo.report.formats import bounds, shown
from grpo.report.read import RunFiles
from grpo.row_values import Row, number

_NUM_ENDS = 5
_MAX_NAMED = 3
"""So many held-out sources are named at the top; the tables below have all."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The mean of a metric over the first and over the last few steps of a run."""

    first: float
    last: float
    num_steps: int


@dataclass(frozen=True, slots=True)
class Tile:
    """One number at the top: what it is now, what it was at the start where that is known, and a note."""

    name: str
    before: float | None
    after: float
    note: str
    percent: bool


def facts(run: RunFiles) -> dict[str, str]:
    """What was trained, with what and for how long; empty where the folder does not say."""
    model, engine = run.recipe.get("model"), run.environment.get("engine")
    return {
        "model": str(model.get("path", "")) if isinstance(model, Mapping) else "",
        "engine": f"{engine.get('name', '')} {engine.get('version', '')}" if isinstance(engine, Mapping) else "",
        "device": str(run.environment.get("device") or ""),
        "commit": str(run.environment.get("commit") or "")[:12],
        "steps": f"{run.training[-1]['step']:,}" if run.training else "none yet",
        "wall time": _wall_time(run.rows),
    }


def _wall_time(rows: Sequence[Row]) -> str:
    """From the first row to the last, plus the time of the step that the first row is of."""
    times = [time for row in rows if (time := number(row, "time_unix")) is not None]
    if not times:
        return ""
    before_s = number(rows[0], "time/step_s") or 0.0
    return str(timedelta(seconds=round(times[-1] - times[0] + before_s)))


def ends(rows: Sequence[Row], key: str) -> Ends | None:
    """Means over the first and the last five values; where there are less than ten, over half of them each."""
    values = [value for row in rows if (value := number(row, key)) is not None]
    if not values:
        return None
    count = max(1, min(_NUM_ENDS, len(values) // 2))
    return Ends(fmean(values[:count]), fmean(values[-count:]), count)


def verdict(sources: Sequence[SourceChange], training: Sequence[Row]) -> str:
    """A few sentences that say whether the run learned."""
    measured = [source for source in sources if len(source.accuracy) > 1]
    if measured:
        return " ".join(_verdict(source) for source in measured[:_MAX_NAMED])
    reward = ends(training, "reward/mean")
    nothing = "There is no pair of held-out evaluations to compare."
    if reward is None or len(training) < 2:
        return nothing
    return f"{nothing} The mean reward went from {shown(reward.first)} to {shown(reward.last)}."


def _verdict(source: SourceChange) -> str:
    first, last = source.accuracy[0], source.accuracy[-1]
    moved = f"{'rose' if last.value > first.value else 'fell'} by {100 * abs(last.value - first.value):.1f} points"
    if last.value == first.value:
        moved = "is unchanged"
    why = f" {source.told}" if source.told else ""
    return f"Held-out accuracy on {source.source} {moved} from step {first.step:,} to step {last.step:,}.{why}"


def tiles(sources: Sequence[SourceChange], training: Sequence[Row]) -> list[Tile]:
    """The numbers at the top: held-out accuracy, reward, share of correct completions."""
    held_out = [_accuracy_tile(source) for source in sources[:_MAX_NAMED] if source.accuracy]
    named = (("Mean reward", "reward/mean", False), ("Correct in training", "outcome/correct_frac", True))
    return [*held_out, *(tile for name, key, percent in named if (tile := _ends_tile(name, training, key, percent)))]


def _accuracy_tile(source: SourceChange) -> Tile:
    first, last = source.accuracy[0], source.accuracy[-1]
    notes = [f"95% interval {bounds(last.interval)}"] if last.interval else []
    notes += [] if source.num_problems is None else [f"{source.num_problems:,} problems"]
    before = None if first is last else first.value
    return Tile(f"Held-out accuracy · {source.source}", before, last.value, " · ".join(notes), True)


def _ends_tile(name: str, training: Sequence[Row], key: str, percent: bool) -> Tile | None:
    found = ends(training, key)
    if found is None:
        return None
    if sum(number(row, key) is not None for row in training) == 1:
        return Tile(name, None, found.last, "one step", percent)
    some = "step" if found.num_steps == 1 else f"{found.num_steps} steps"
    return Tile(name, found.first, found.last, f"first {some} against last {some}", percent)

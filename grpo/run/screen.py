"""The display of a running training: a live one on a terminal, and plain lines in a pipe or a log file.

It knows nothing of training itself: it is given rows of metrics and of completions, and writes text.
"""

from __future__ import annotations

import math
import sys
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from grpo.evaluation.changes import SourceChange, source_changes
from grpo.report.formats import bounds, shown, signed
from grpo.row_values import Row, number, part_names

if TYPE_CHECKING:
    from rich.console import Group

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-:=+*#"
_SPARK_WIDTH = 32
_PACE_ROWS = 20
_TEXT_LIMIT = 600


class Display(ABC):
    """What shows a running training; a context manager that leaves the terminal as it was."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def phase(self, name: str) -> None:
        """Show what the run is doing now: generate, score, update, sync, eval or checkpoint."""

    @abstractmethod
    def step(self, row: Row) -> None:
        """Show the metrics of a finished step."""

    @abstractmethod
    def message(self, text: str) -> None:
        """Print a text, which may have several lines; a live display prints it above its own lines."""

    @abstractmethod
    def close(self) -> None:
        """Stop drawing and leave the terminal usable. May be called more than once."""

    def completions(self, step: int, rows: Sequence[Row]) -> None:
        """Show a few completions of a step."""
        for row in rows:
            self.message("\n".join(completion_lines(step, row)))

    def summary(self, changes: Sequence[SourceChange], report: Path) -> None:
        """Print the held-out metrics before and after the run, and the path of the report."""
        self.message("\n".join([*summary_lines(changes), f"report: {report}"]))


def make_display(total_steps: int, start_step: int, stream: TextIO | None = None) -> Display:
    """A live display on a terminal, plain lines anywhere else (`stream` defaults to stdout)."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        return PlainDisplay(total_steps, start_step, stream)
    from rich.console import Console

    console = Console(file=stream, markup=False, emoji=False, highlight=False)
    if console.is_dumb_terminal:
        return PlainDisplay(total_steps, start_step, stream)
    return LiveDisplay(total_steps, start_step, console)


class Pace:
    """Estimates how long the rest of a run will take, from the times at which its last steps ended."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._seen: list[tuple[int, float]] = []
        self._step_s: float | None = None

    def see(self, row: Row) -> None:
        """Note the row of metrics of a finished step."""
        self._step_s = number(row, "time/step_s")
        time_unix = number(row, "time_unix")
        if time_unix is not None:
            self._seen = [*self._seen, (row["step"], time_unix)][-_PACE_ROWS:]

    def left(self) -> str:
        """The time left as `08:12` or `1:08:12`, `--:--` while it is not known."""
        each_s = self._each_s()
        if each_s is None or not self._seen:
            return "--:--"
        minutes, seconds = divmod(round(each_s * max(0, self._total_steps - self._seen[-1][0])), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"

    def _each_s(self) -> float | None:
        """Mean seconds from step to step, evaluations between them included; after a single step its own time."""
        if len(self._seen) > 1 and self._seen[-1][0] > self._seen[0][0]:
            (first, start), (last, end) = self._seen[0], self._seen[-1]
            return max(0.0, end - start) / (last - first)
        return self._step_s


class PlainDisplay(Display):
    """Prints one line for each step, without control codes: for log files and pipes."""

    def __init__(self, total_steps: int, start_step: int, stream: TextIO) -> None:
        self._total_steps = total_steps
        self._stream = stream
        self._pace = Pace(total_steps)
        self.message(f"steps {start_step + 1} to {total_steps}")

    def phase(self, name: str) -> None:
        """Do nothing: a line for each phase would be too many."""

    def step(self, row: Row) -> None:
        """Print the step's line, and one for each source that was evaluated in it."""
        self._pace.see(row)
        if row["step"] > 0:
            self.message(step_line(row, self._total_steps, self._pace.left()))
        for line in evaluation_lines(row, self._total_steps):
            self.message(line)

    def message(self, text: str) -> None:
        """Write a text to the stream without waiting for more."""
        print(visible(text, self._stream.encoding), file=self._stream, flush=True)

    def close(self) -> None:
        """Do nothing: each line was written at once."""


class LiveDisplay(Display):
    """Keeps a few lines at the bottom of the terminal up to date; everything that is printed scrolls above them."""

    def __init__(self, total_steps: int, start_step: int, console: Any) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self._console = console
        self._pace = Pace(total_steps)
        self._rewards: list[float] = []
        self._row: Row = {}
        self._total_steps = total_steps
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("step", markup=False),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=total_steps, completed=start_step)
        self._live = Live(self._view(), console=console, refresh_per_second=8)
        self._live.start()

    def phase(self, name: str) -> None:
        """Write the phase beside the progress bar."""
        self._bar.update(self._task, description=f"{name}  left {self._pace.left()}")

    def step(self, row: Row) -> None:
        """Move the progress bar, show the step's numbers, and print a line for each source evaluated in it."""
        self._pace.see(row)
        reward = number(row, "reward/mean")
        self._rewards += [] if reward is None else [reward]
        self._row = row
        self._bar.update(self._task, completed=row["step"], description=f"left {self._pace.left()}")
        self._live.update(self._view())
        for line in evaluation_lines(row, self._total_steps):
            self.message(line)

    def message(self, text: str) -> None:
        """Print a text above the live lines."""
        self._console.print(visible(text, self._console.encoding), soft_wrap=True)

    def close(self) -> None:
        """Stop the live lines; what they last showed stays on the screen."""
        self._live.stop()

    def _view(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        blocks = _BLOCKS if self._console.encoding.lower().startswith("utf") else _ASCII_BLOCKS
        lines = [f"reward {sparkline(self._rewards[-_SPARK_WIDTH:], blocks)}"] if self._rewards else []
        if self._row.get("step"):
            lines.insert(0, "  ".join(step_facts(self._row)))
        return Group(*(Text(visible(line, self._console.encoding)) for line in lines), self._bar)


def step_line(row: Row, total_steps: int, left: str) -> str:
    """One step as one line, in which every number has a fixed width, so that lines stay aligned."""
    return "  ".join([_counter("step", row["step"], total_steps), *step_facts(row), f"left {left}"])


def step_facts(row: Row) -> list[str]:
    """Reward and its parts, share of correct completions, length and speed of one step."""
    parts = " ".join(f"{name} {_fixed(row, f'reward/{name}')}" for name in part_names([row]))
    return [
        f"reward {_fixed(row, 'reward/mean')}" + (f" ({parts})" if parts else ""),
        f"correct {_fixed(row, 'outcome/correct_frac')}",
        f"length {_whole(row, 'completion/length_tokens', 4)}",
        f"{_whole(row, 'speed/tokens_per_s', 5)} tok/s",
    ]


def evaluation_lines(row: Row, total_steps: int) -> list[str]:
    """One line for each source that the row holds an evaluation of."""
    start = _counter("eval", row["step"], total_steps)
    return [
        f"{start}  {change.source}  " + "  ".join(f"{c.label} {shown(c.after, c.is_share)}" for c in change.changes)
        for change in source_changes([row])
    ]


def summary_lines(changes: Sequence[SourceChange]) -> list[str]:
    """For each source a table of its first and last evaluation, and whether the change is more than chance."""
    lines: list[str] = []
    for change in changes:
        lines.append(_table_line(change.source, "before", "after", "change"))
        for one in change.changes:
            before = "-" if one.before is None else shown(one.before, one.is_share)
            delta = "-" if one.before is None else signed(one.after - one.before, one.is_share)
            lines.append(_table_line(f"  {one.label}", before, shown(one.after, one.is_share), delta))
            if one.metric == "accuracy":
                lines.append(_interval_line(change))
        lines += [f"  {change.told}"] if change.told else []
    return lines


def _interval_line(change: SourceChange) -> str:
    """The intervals of both accuracies, and that of their difference where the verdicts were kept."""
    ends = (change.accuracy[0].interval, change.accuracy[-1].interval)
    before, after = ("-" if end is None else bounds(end) for end in ends)
    paired = bounds(change.paired.difference, signs=True) if change.paired and change.paired.has_moved else ""
    return _table_line("    95% interval", before, after, paired)


def _table_line(label: str, before: str, after: str, change: str = "") -> str:
    return f"{label:<20}{before:>15}{after:>15}{change:>15}".rstrip()


def completion_lines(step: int, row: Row) -> list[str]:
    """One completion as lines of text: its reward and outcome, the question, and what was written."""
    reward = number(row, "reward")
    earned = f"reward {'-' if reward is None else shown(reward)}  {row.get('outcome')}  gold {row.get('gold')}"
    text = str(row.get("text", ""))
    cut = text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]} … {len(text) - _TEXT_LIMIT} more"
    opening = "<think>" if row.get("opens_think") else ""
    asked = [f"  ? {line}" for line in str(row.get("question", "")).splitlines()]
    return [
        f"completion at step {step}  {earned}",
        *asked,
        *(f"  | {line}" for line in (opening + cut).splitlines()),
    ]


def sparkline(values: Sequence[float], blocks: str = _BLOCKS) -> str:
    """The values as a row of blocks, from the lowest of them to the highest."""
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    top = len(blocks) - 1
    return "".join(blocks[round((value - low) / span * top) if span > 0 else 0] for value in values)


def visible(text: str, encoding: str | None = None) -> str:
    """The text with control characters, and what `encoding` has no code for, replaced by a mark.

    A model may write a terminal's control codes, which must not be carried out, or characters that cannot be printed,
    which must not end the run.
    """
    kept = "".join("\N{REPLACEMENT CHARACTER}" if _is_control(char) else char for char in text.expandtabs(4))
    return kept.encode(encoding or "utf-8", "replace").decode(encoding or "utf-8")


def _is_control(char: str) -> bool:
    return char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _counter(name: str, step: int, total_steps: int) -> str:
    width = len(str(total_steps))
    return f"{name} {step:>{width}}/{total_steps}"


def _fixed(row: Row, key: str) -> str:
    value = number(row, key)
    return f"{'-':>5}" if value is None else f"{value:5.2f}"


def _whole(row: Row, key: str, width: int) -> str:
    value = number(row, key)
    return f"{'-':>{width}}" if value is None else f"{math.floor(value + 0.5):>{width}}"

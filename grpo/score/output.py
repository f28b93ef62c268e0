"""Where scored rows go: a file or the screen, with a bar that shows how far the work is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from grpo.display import visible
from grpo.errors import UserError

_TEXT_LIMIT = 100


class RowWriter:
    """Writes rows as JSON lines and hands them to the system at each `flush`, so that an interrupt loses little."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, row: Mapping[str, Any]) -> None:
        """One row; characters that the stream cannot say are escaped."""
        line = json.dumps(row, ensure_ascii=False)
        try:
            line.encode(self._stream.encoding or "utf-8")
        except UnicodeEncodeError:
            line = json.dumps(row)
        self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def open_writer(out: Path | None, source: Path) -> Iterator[RowWriter]:
    """A writer to a file, or to the screen. Raises UserError for a file that is being read."""
    if out is None:
        yield RowWriter(sys.stdout)
        return
    if out.exists() and out.samefile(source):
        raise UserError(f"--out={out}: is the file that is read; give another")
    with out.open("w", encoding="utf-8") as stream:
        yield RowWriter(stream)


@contextmanager
def progress(total: int, rows_on_screen: bool, stream: TextIO | None = None) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, moved by calling what this gives with a number of rows.

    There is none where stderr is no terminal, or where the rows themselves fill the screen.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    stream = sys.stderr if stream is None else stream
    hidden = not stream.isatty() or (rows_on_screen and sys.stdout.isatty())
    columns = (TextColumn("rows"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    console = Console(file=stream)
    with Progress(*columns, console=console, disable=hidden, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("", total=total)
        yield lambda num_rows: bar.advance(task, num_rows)


def short(text: object) -> str:
    """A text as part of a line for the screen: in one piece, not long, and without control characters."""
    line = visible(" ".join(str(text).split()))
    return line if len(line) <= _TEXT_LIMIT else f"{line[:_TEXT_LIMIT]} … {len(line) - _TEXT_LIMIT} more"

"""Where scored rows go: a file or the screen, with a bar that shows how far the work is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from grpo.errors import UserError
from grpo.run.screen import visible
from rewards import jsonl
from rewards.jsonl import RowFileError, RowWriter

_TEXT_LIMIT = 100


@contextmanager
def open_writer(out: Path | None, source: Path) -> Iterator[RowWriter]:
    """A writer to a file, or to the screen. Raises UserError for a file that cannot be written or is being read."""
    try:
        with jsonl.open_writer(out, source) as writer:
            yield writer
    except RowFileError as error:
        raise UserError(str(error)) from None


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

"""The rows that a run leaves behind: the names of their files, and the one way to read them back.

A file of rows is JSONL: one object a line, each with a whole number under ``step``. It may be missing, cut short by a
crash, or larger than memory.

``completions.jsonl`` grows by megabytes a step, so it is kept in parts. The file of that name is the part that is being
written; ``completions_000120.jsonl.gz`` beside it is a closed part, whose last row is of step 120. What reads rows
reads them through this module, and so gets all parts, the oldest first.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from rewards import jsonl

METRICS = "metrics.jsonl"
COMPLETIONS = "completions.jsonl"
EVALS = "evals.jsonl"
CHANGES = "recipe_changes.jsonl"
ROW_FILES = (METRICS, COMPLETIONS, EVALS)
"""Those that are cut back when a run goes on; changes of the recipe are kept."""

_STEP = re.compile(rb'"step"\s*:\s*(\d+)')
_CLOSED_PART = re.compile(r"completions_(\d{6,})\.jsonl(?:\.gz)?")
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged part raises."""


@dataclass(frozen=True, order=True)
class ClosedPart:
    """A part of the completions that is no longer written to."""

    last_step: int
    """The step of its last row. Its first row is of a step after the part before it."""
    plain: Path
    """Where it is until it has been compressed."""

    @property
    def compressed(self) -> Path:
        """Where it is once it has been compressed."""
        return self.plain.with_name(f"{self.plain.name}.gz")

    def open(self) -> BinaryIO:
        """Its text. Raises FileNotFoundError where the part has been removed."""
        # The plain file goes only once the compressed one is in place; where both are there, it is the surer one.
        with contextlib.suppress(FileNotFoundError):
            return _open(self.plain)
        return _open(self.compressed)


def closed_parts(file: Path) -> list[ClosedPart]:
    """The closed parts of a file of rows, the oldest first; only the completions have any."""
    if file.name != COMPLETIONS or not file.parent.is_dir():
        return []
    matches = (_CLOSED_PART.fullmatch(name) for name in os.listdir(file.parent))
    last_steps = {match[0].removesuffix(".gz"): int(match[1]) for match in matches if match}
    return sorted(ClosedPart(last_step, file.with_name(name)) for name, last_step in last_steps.items())


def lines_of(file: Path, steps: Collection[int] | None = None) -> Iterator[bytes]:
    """All lines of a file of rows, those of its closed parts first; none where there is no such file.

    With `steps`, closed parts that cannot hold a row of those steps are not opened. A part that is damaged is read as
    far as it goes.
    """
    before = -1
    for part in closed_parts(file):
        if steps is None or any(before < step <= part.last_step for step in steps):
            with contextlib.suppress(FileNotFoundError, *DAMAGED), part.open() as handle:
                yield from handle
        before = part.last_step
    with contextlib.suppress(FileNotFoundError, *DAMAGED), _open(file) as handle:
        yield from handle


def read_rows(file: Path, steps: Collection[int] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file with its closed parts, one at a time and in the order in which they were written.

    With `steps`, only the rows of those steps; lines of other steps are passed over without being parsed, so that
    large files stay cheap. Lines that are no rows (torn by a crash, say) are left out.
    """
    wanted = (line for line in lines_of(file, steps) if steps is None or step_of(line) in steps)
    for row in jsonl.read_rows(wanted):
        step = row.fields.get("step")
        if type(step) is int and (steps is None or step in steps):
            yield dict(row.fields)


def steps_in(file: Path) -> list[int]:
    """The steps that a file holds rows of, in order and without parsing them."""
    return sorted({step for line in lines_of(file) if (step := step_of(line)) is not None})


def step_of(line: bytes) -> int | None:
    """The step that a line names, without parsing the line; None where it names none."""
    found = _STEP.search(line)
    return int(found[1]) if found else None


def _open(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file, "rb")) if file.suffix == ".gz" else file.open("rb")

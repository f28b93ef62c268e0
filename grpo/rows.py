"""The rows that a run leaves behind: the names of their files, and the one way to read them back.

A file of rows is JSONL: one object a line, each with a whole number under ``step``. It may be missing, cut short by
a crash, or larger than memory.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards import jsonl

METRICS = "metrics.jsonl"
COMPLETIONS = "completions.jsonl"
EVALS = "evals.jsonl"

Row = Mapping[str, Any]

_STEP = re.compile(rb'"step"\s*:\s*(\d+)')


def read_rows(file: Path, steps: Collection[int] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a file with its closed parts, one at a time and in the order in which they were written.

    With `steps`, only the rows of those steps; lines of other steps are passed over without being parsed, so that
    large files stay cheap. Lines that are no rows (torn by a crash, say) are left out.
    """
    wanted = (line for line in lines_of(file) if steps is None or _step_of(line) in steps)
    for row in jsonl.read_rows(wanted):
        step = row.fields.get("step")
        if type(step) is int and (steps is None or step in steps):
            yield dict(row.fields)


def steps_in(file: Path) -> list[int]:
    """The steps that a file holds rows of, in order and without parsing them."""
    return sorted({step for line in lines_of(file) if (step := _step_of(line)) is not None})


def number(row: Row, key: str) -> float | None:
    """The value of `key` as a finite float, or None for missing, null, NaN and anything else."""
    value = row.get(key)
    if type(value) is not float and type(value) is not int:
        return None
    return float(value) if math.isfinite(value) else None


def keys_of(rows: Sequence[Row]) -> list[str]:
    """All keys of the rows, in the order of their first appearance."""
    keys: dict[str, Any] = {}
    for row in rows:
        keys |= row
    return list(keys)


def part_names(rows: Sequence[Row]) -> list[str]:
    """The names of the reward parts in rows of metrics, in the order of their first appearance."""
    keys = [key for key in keys_of(rows) if key.startswith("reward/")]
    return [key.removeprefix("reward/") for key in keys if key not in ("reward/mean", "reward/std")]


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of ``NAME.jsonl`` that are not blank, after those of its closed parts ``NAME_000001.jsonl.gz`` etc."""
    for part in sorted(file.parent.glob(f"{file.stem}_*.jsonl.gz")):
        with gzip.open(part) as closed:
            yield from (line for line in closed if line.strip())
    if file.is_file():
        with file.open("rb") as handle:
            yield from (line for line in handle if line.strip())


def _step_of(line: bytes) -> int | None:
    found = _STEP.search(line)
    return int(found[1]) if found else None

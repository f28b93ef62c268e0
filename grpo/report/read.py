"""Read a run's folder: every file may be missing, cut short or very large."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grpo.errors import UserError
from grpo.rows import lines_of

Row = Mapping[str, Any]

_STEP = re.compile(rb'"step"\s*:\s*(\d+)')


class ReportError(UserError):
    """A folder that no report can be made from; the text says where, what and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """What the small files of a run's folder hold.

    `rows` is ordered by step; of a step that was run twice (after a resume) the later row counts.
    """

    folder: Path
    rows: tuple[Row, ...]
    num_unreadable: int
    recipe_text: str
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def training(self) -> list[Row]:
        """The rows of training steps, without the evaluation before training."""
        return [row for row in self.rows if row["step"] > 0]


def read_run(folder: Path) -> Run:
    """Read metrics, recipe and environment; raises ReportError where there are no metrics."""
    rows, num_unreadable = _read_metrics(folder)
    recipe_text = _text(folder / "recipe.yaml")
    return Run(
        folder=folder,
        rows=rows,
        num_unreadable=num_unreadable,
        recipe_text=recipe_text,
        recipe=_mapping(recipe_text),
        environment=_mapping(_text(folder / "environment.json")),
    )


def number(row: Row, key: str) -> float | None:
    """The value of `key` as a finite float, or None for missing, null, NaN and anything else."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def rows_by_line(path: Path, steps: frozenset[int] | None = None) -> Iterator[Row]:
    """Stream the rows of a JSON-lines file, only those of `steps` if given; skips what cannot be read.

    Lines of other steps are passed over without being parsed, so that large files stay cheap.
    """
    for line in _lines(path, steps):
        if steps is not None and _step_of(line) not in steps:
            continue
        row = _parsed(line)
        if row is not None and (steps is None or row["step"] in steps):
            yield row


def steps_in(path: Path) -> list[int]:
    """The steps that a JSON-lines file holds rows of, in order."""
    return sorted({step for line in _lines(path) if (step := _step_of(line)) is not None})


def _read_metrics(folder: Path) -> tuple[tuple[Row, ...], int]:
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise ReportError(f"run_dir={folder}: has no metrics.jsonl; give the folder of a run that has started")
    parsed = [_parsed(line) for line in _lines(path)]
    by_step = {row["step"]: row for row in parsed if row is not None}
    if not by_step:
        raise ReportError(f"run_dir={folder}: metrics.jsonl holds no whole row; wait for the first step to end")
    return tuple(by_step[step] for step in sorted(by_step)), parsed.count(None)


def _lines(path: Path, steps: frozenset[int] | None = None) -> Iterator[bytes]:
    yield from (line for line in lines_of(path, steps) if line.strip())


def _step_of(line: bytes) -> int | None:
    found = _STEP.search(line)
    return int(found[1]) if found else None


def _parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int) and not isinstance(row["step"], bool)
    return row if whole else None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _mapping(text: str) -> Mapping[str, Any]:
    """The mapping written in `text` (YAML, of which JSON is a part), empty where there is none."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}

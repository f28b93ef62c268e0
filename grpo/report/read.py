"""Read a run's folder for its report: every file may be missing, cut short or very large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grpo.errors import UserError
from grpo.row_values import Row
from grpo.rows import METRICS, lines_of, read_rows


class ReportError(UserError):
    """A folder that no report can be made from; the text says where, what and what to do."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What the small files of a run's folder hold.

    `rows` are those of metrics, by step; of a step that was run twice (after a resume) the later row counts.
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


def read_run(folder: Path) -> RunFiles:
    """Read metrics, recipe and environment; raises ReportError where there are no metrics."""
    file = folder / METRICS
    if not file.is_file():
        raise ReportError(f"run_dir={folder}: has no metrics.jsonl; give the folder of a run that has started")
    rows = list(read_rows(file))
    if not rows:
        raise ReportError(f"run_dir={folder}: metrics.jsonl holds no whole row; wait for the first step to end")
    by_step = {row["step"]: row for row in rows}
    recipe_text = _text(folder / "recipe.yaml")
    return RunFiles(
        folder=folder,
        rows=tuple(by_step[step] for step in sorted(by_step)),
        num_unreadable=sum(1 for line in lines_of(file) if line.strip()) - len(rows),
        recipe_text=recipe_text,
        recipe=_mapping(recipe_text),
        environment=_mapping(_text(folder / "environment.json")),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _mapping(text: str) -> Mapping[str, Any]:
    """The mapping written in `text` (YAML, of which JSON is a part), empty where there is none."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return value if isinstance(value, dict) else {}

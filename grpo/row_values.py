"""What stands in the rows of a run: their keys, and their values as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


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

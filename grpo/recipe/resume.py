"""What may change when a run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from grpo.recipe.sections import Recipe

RESUMABLE = (
    "run.dir",
    "run.steps",
    "run.device",
    "run.rank_timeout_s",
    "checkpoint",
    "log",
    "scoring.workers",
    "scoring.deadline_s",
    "scoring.memory_gib",
    "scoring.max_failed_frac",
    "scoring.when_failing",
    "rollout.timeout_s",
)
"""What may differ between a run's recipe and the one it is continued with."""


def changed_keys(old: Recipe, new: Recipe) -> list[str]:
    """Dotted keys that differ and may not differ when a run goes on.

    The number of steps may, unless the learning rate depends on it.
    """
    before, after = (dict(_flatten(recipe.model_dump(mode="json"))) for recipe in (old, new))
    differing = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    bound = ("run.steps",) if new.update.schedule != "constant" else ()
    return [key for key in differing if key in bound or not any(f"{key}.".startswith(f"{free}.") for free in RESUMABLE)]


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value

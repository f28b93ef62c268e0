"""What may change when a run goes on: what does not change what the run learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from grpo.recipe.sections import Recipe

RESUMABLE = {
    "run.dir": "the folder may be moved",
    "run.steps": "a run may be made longer or shorter, unless its learning rate depends on the number of steps",
    "run.device": "the same arithmetic elsewhere, but for rounding",
    "run.rank_timeout_s": "a limit on waiting",
    "model.gradient_checkpointing": "the same numbers, from less memory",
    "model.compile": "the same arithmetic, but for rounding",
    "model.attention": "the same",
    "data.max_bad_frac": "it decides whether a run starts, not on which rows",
    "rollout.tensor_parallel": "how the engine is laid out over GPUs",
    "rollout.gpu_memory_frac": "the engine's memory, which bounds how many completions it decodes at once",
    "rollout.cpu_kv_cache_gib": "the same",
    "rollout.max_parallel": "the same; seeds belong to completions, not to their order",
    "rollout.eager": "how the engine starts",
    "rollout.timeout_s": "a limit on waiting",
    "rollout.sync_tolerance": "it decides when a run ends",
    "update.tokens_per_micro_batch": "the update does not depend on how it is cut up",
    "update.max_bad_steps": "it decides when a run ends",
    "scoring.workers": "how many verdicts are made at once",
    "scoring.deadline_s": "limits on a verdict: what they stop is a failure, and earns what a wrong answer does",
    "scoring.memory_gib": "the same",
    "scoring.max_failed_frac": "it decides when a run ends",
    "scoring.when_failing": "the same",
    "eval": "nothing is learnt from an evaluation",
    "checkpoint": "when they are written, and how many are kept",
    "log": "what is shown and kept",
}
"""What may differ between a run's recipe and the one that it is continued with, each with the reason. A name covers
the keys below it.

All else shapes what is learnt. A few keys are refused that a reader might look for here: `model.compute`,
`rollout.dtype` and `rollout.engine` change which completions are written by more than rounding,
`data.max_prompt_tokens` decides which problems are asked, and rewards, template and learning rate are the run itself.
"""


@dataclass(frozen=True)
class RecipeChange:
    """A key whose value differs between the recipe of a run and that which it is continued with."""

    key: str
    """Dotted; an entry of a list has its number: ``rewards.0.weight``."""
    old: Any
    new: Any
    """None where the key is not there."""
    may_change: bool


def changes(old: Recipe, new: Recipe) -> list[RecipeChange]:
    """Every key that differs, in alphabetical order."""
    before, after = (dict(_flatten(recipe.model_dump(mode="json"))) for recipe in (old, new))
    return [
        RecipeChange(key, before.get(key), after.get(key), _may_change(key, new))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _may_change(key: str, recipe: Recipe) -> bool:
    if key == "run.steps" and recipe.update.schedule != "constant":
        return False
    return any(f"{key}.".startswith(f"{free}.") for free in RESUMABLE)


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [pair for key, entry in entries for pair in _flatten(entry, f"{prefix}.{key}" if prefix else str(key))]
    yield from inner or [(prefix, value)]

"""A task that a random model over characters can learn in seconds, and the recipe that trains it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def lower_case_share(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """A reward with TRL's signature: the share of a completion's characters that are lower-case letters."""
    return [sum(char.islower() for char in text) / max(1, len(text)) for text in completions]


def fail_on_odd_ranks(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """A reward that breaks on some of the ranks only."""
    if int(os.environ.get("RANK", "0")) % 2:
        raise RuntimeError("failed on purpose")
    return [0.0 for _ in completions]


def toy_recipe(model: Path, run_dir: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """A recipe as YAML would give it; `sections` are merged into it key by key."""
    recipe: dict[str, Any] = {
        "run": {"dir": str(run_dir), "steps": 2, "device": "cpu"},
        "model": {"path": str(model), "compute": "fp32"},
        "data": {
            "train": {"source": "arithmetic", "num_problems": 64, "options": {"max_value": 20}},
            "template": "plain",
            "max_prompt_tokens": 64,
        },
        "rollout": {
            "engine": "transformers",
            "dtype": "float32",
            "prompts_per_step": 4,
            "group_size": 4,
            "max_new_tokens": 12,
            "cpu_kv_cache_gib": 0.1,
            "sync_tolerance": 0.02,
        },
        "rewards": [{"name": "toy:lower_case_share"}],
        "update": {"lr": 3e-3, "tokens_per_micro_batch": 256},
        "eval": {"sources": [{"source": "arithmetic", "split": "test", "num_problems": 8}]},
        "checkpoint": {"every": 1, "keep": 2},
    }
    for name, changes in sections.items():
        if isinstance(recipe.get(name), dict) and isinstance(changes, dict):
            recipe[name] |= changes
        else:
            recipe[name] = changes
    return recipe

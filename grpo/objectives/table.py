"""The objectives by name, with the advantage and the normalisation that their papers give them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rewards.errors import did_you_mean

Advantage = Literal["group_std", "group_mean", "leave_one_out", "batch", "group_batch", "gdpo"]
Normalise = Literal["token", "sequence", "sequence_sum", "constant"]
_SURROGATES = "grpo.objectives.surrogates"


@dataclass(frozen=True)
class Objective:
    """A function by its dotted path, and what goes with it where the recipe does not say otherwise."""

    function: str
    advantage: Advantage = "group_std"
    normalise: Normalise = "token"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Where a paper's values differ from the function's own."""


OBJECTIVES = {
    "grpo": Objective(f"{_SURROGATES}:clipped_ratio", normalise="sequence"),
    "dapo": Objective(f"{_SURROGATES}:clipped_ratio", options={"clip_high": 0.28}),
    "dr_grpo": Objective(f"{_SURROGATES}:clipped_ratio", "group_mean", "constant"),
    "gspo": Objective(f"{_SURROGATES}:sequence_ratio", normalise="sequence"),
    "gspo_token": Objective(f"{_SURROGATES}:sequence_token_ratio", normalise="sequence"),
    "cispo": Objective(f"{_SURROGATES}:clipped_weight"),
    "rloo": Objective(f"{_SURROGATES}:policy_gradient", "leave_one_out", "sequence_sum"),
    "reinforce_pp": Objective(f"{_SURROGATES}:clipped_ratio", "batch"),
    "reinforce_pp_baseline": Objective(f"{_SURROGATES}:clipped_ratio", "group_batch"),
    "kimi_k1_5": Objective(f"{_SURROGATES}:mirror_descent", "group_mean", "sequence_sum"),
}


def get_objective(name: str) -> Objective:
    """A named objective, or the user's own function, which gets the advantage of GRPO and counts tokens alike."""
    return OBJECTIVES.get(name) or Objective(name)


def objective_fault(name: str) -> str | None:
    """Why a recipe cannot have this objective, as far as its name tells."""
    if name in OBJECTIVES or ":" in name:
        return None
    return f"no such objective; {did_you_mean(name, OBJECTIVES)}, or give a function of your own as module:function"

"""The verdict as a number."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.options import CorrectnessOptions
from rewards.types import Outcome


def correctness_reward(outcomes: Sequence[Outcome], options: CorrectnessOptions) -> list[float | None]:
    """`correct` for CORRECT, None when the gold is unusable (nothing can be learnt), `wrong` for all others.

    Time-outs and crashes pay `wrong` as well: paying nothing at all would make a bomb better than a wrong
    answer wherever `wrong` is negative.
    """
    paid = {Outcome.CORRECT: options.correct, Outcome.GOLD_UNUSABLE: None}
    return [paid.get(outcome, options.wrong) for outcome in outcomes]

"""The verdict as a number."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.parts.checked import CheckedResponse
from rewards.parts.options import CorrectnessOptions
from rewards.records import ScoreRequest


def correctness_reward(
    request: ScoreRequest, checked: Sequence[CheckedResponse], options: CorrectnessOptions
) -> list[float]:
    """`correct` for a right answer, `wrong` for all others: the accuracy reward of DeepSeek-R1 (arXiv 2501.12948,
    section 2.2.2).

    Time-outs and crashes pay `wrong` as well: paying nothing at all would make a bomb better than a wrong
    answer wherever `wrong` is negative.
    """
    return [options.correct if one.is_right else options.wrong for one in checked]

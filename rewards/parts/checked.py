"""A completion and the outcome of its verdict: what the outcome-based rewards look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rewards.parts.format import is_well_formed
from rewards.records import Outcome, Response, ScoreRequest


@dataclass(frozen=True)
class CheckedResponse:
    """One completion, the outcome of its verdict, and its answer as extracted (None where there is none)."""

    response: Response
    outcome: Outcome
    answer: str | None = None

    @property
    def is_right(self) -> bool:
        return self.outcome is Outcome.CORRECT

    @property
    def num_tokens(self) -> int:
        return self.response.num_tokens


def apply_format_gate(request: ScoreRequest, checked: Sequence[CheckedResponse]) -> list[CheckedResponse]:
    """The same, with every right answer in a completion that is not well formed (strict) turned into a wrong one.

    Why a gate: a format reward that is added makes the length drift, since a fixed bonus outweighs what a longer
    chain of thought still gains and is easiest to keep in a short completion; and a sum lets form be traded against
    being right, so that a well-formed guess can be paid as much as a right answer. Behind a gate there is nothing
    to trade: only a right answer in the right form is paid for being right.
    """
    return [_gated(request, one) for one in checked]


def _gated(request: ScoreRequest, one: CheckedResponse) -> CheckedResponse:
    if not one.is_right or is_well_formed(one.response, request.opens_think, request.answer_style):
        return one
    return replace(one, outcome=Outcome.WRONG)

"""A completion and its verdict: what the outcome-based rewards look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rewards.parts.format import is_well_formed
from rewards.records import Outcome, Response, ScoreRequest


@dataclass(frozen=True)
class Judged:
    """One completion, what its answer was found to be, and that answer as extracted."""

    response: Response
    outcome: Outcome
    answer: str | None = None

    @property
    def is_right(self) -> bool:
        return self.outcome is Outcome.CORRECT

    @property
    def num_tokens(self) -> int:
        return self.response.num_tokens


def behind_gate(request: ScoreRequest, judged: Sequence[Judged]) -> list[Judged]:
    """The same, with every right answer in a completion that is not well formed (strict) turned into a wrong one.

    Why a gate: a format reward that is added makes the length drift, since a fixed bonus outweighs what a longer
    chain of thought still gains and is easiest to keep in a short completion; and a sum lets form be traded against
    being right, so that a well-formed guess can be paid as much as a right answer. Behind a gate there is nothing
    to trade: only a right answer in the right form is paid for being right.
    """
    return [_behind_gate(request, one) for one in judged]


def _behind_gate(request: ScoreRequest, one: Judged) -> Judged:
    if not one.is_right or is_well_formed(one.response, request.opens_think, request.answer_style):
        return one
    return replace(one, outcome=Outcome.WRONG)

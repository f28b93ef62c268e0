"""What goes into scoring and what comes out. Plain frozen records, cheap to send to another process.

A *verdict* is what a checker finds out about one answer; a *score* is the reward that one completion of a group gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

AnswerStyle = Literal["tags", "boxed"]


class Outcome(StrEnum):
    """What a verdict says. Only the first two say anything about the answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    MALFORMED = "malformed"
    GOLD_UNUSABLE = "gold_unusable"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Verdict:
    """What was found out about one answer, and what that cost."""

    outcome: Outcome
    reason: str = ""
    """Why the outcome is what it is, where that needs a word."""
    wall_s: float = 0.0
    """Wall-clock seconds that it took."""
    cpu_s: float = 0.0
    """CPU seconds of the checker, those of the processes that it started included."""


@dataclass(frozen=True)
class Response:
    """One completion, as far as rewards may look at it."""

    text: str
    num_tokens: int
    truncated: bool
    """True when the length limit cut the completion off."""


@dataclass(frozen=True)
class ScoreRequest:
    """One problem and all completions of its group: the unit that is scored together."""

    id: str
    question: str
    gold: str
    checker: str
    responses: tuple[Response, ...]
    opens_think: bool = False
    """True when the prompt already ends with ``<think>``, so that completions start inside the thinking."""
    answer_style: AnswerStyle = "tags"
    """``tags``: the answer stands in ``<answer>…</answer>``; ``boxed``: in the last ``\\boxed{}``."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The problem's row of the data set."""
    step: int = 0
    """The step of training, for rewards that change over time."""


@dataclass(frozen=True)
class Score:
    """The reward of one completion, with the parts and the verdict that it is made of.

    ``reward`` is the weighted sum of ``parts``; a part is None when its reward had no opinion or failed,
    and then adds nothing.
    """

    reward: float
    parts: Mapping[str, float | None]
    outcome: Outcome
    answer: str | None
    """The extracted answer, or None when there is none."""
    reason: str = ""
    """Why there is no answer or no verdict, or what was wrong with it; empty where the outcome says it all."""
    cpu_s: float = 0.0
    """CPU seconds that the verdict took; equal answers of a group share one verdict."""

    @property
    def has_failed(self) -> bool:
        """Whether there is no verdict, since the checker timed out or crashed."""
        return self.outcome in (Outcome.TIMED_OUT, Outcome.CRASHED)

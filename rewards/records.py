"""What goes into scoring and what comes out. Plain frozen records, cheap to send to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

AnswerStyle = Literal["tags", "boxed"]


class Outcome(StrEnum):
    """What happened when a completion was judged. Only the first two say anything about the answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    MALFORMED = "malformed"
    GOLD_UNUSABLE = "gold_unusable"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Verdict:
    """What was found out about one answer: the outcome, why where that needs a word, and what it cost."""

    outcome: Outcome
    reason: str = ""
    wall_s: float = 0.0
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
    step: int = 0


@dataclass(frozen=True)
class Score:
    """The verdict on one completion.

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
        """Whether the verdict never came."""
        return self.outcome in (Outcome.TIMED_OUT, Outcome.CRASHED)

"""What a run does when too many verdicts or rewards fail."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from data.problem import Problem
from data.templates import get_template
from grpo.config import ScoringSection
from grpo.errors import UserError
from grpo.judging import Judge
from grpo.meter import Meter
from grpo.types import Completion, Group, Prompt
from rewards.scorer import Fault
from rewards.types import Outcome, Score, ScoreRequest

CRASHED = Score(0.0, {"correctness": None}, Outcome.CRASHED, None)
RIGHT = Score(1.0, {"correctness": 1.0}, Outcome.CORRECT, "1")
GROUP = Group(
    Prompt(Problem("toy/train/0", "?", "1", "integer", "toy", 0), (3,)),
    (Completion((5,), (-0.5,), "1", "stop"),) * 4,
    version=0,
    position=0,
)


class FailingScorer:
    """Three of four verdicts crash, and a reward times out on two completions."""

    def submit(self, request: ScoreRequest) -> None:
        assert len(request.responses) == 4

    def collect(self) -> list[tuple[Score, ...]]:
        return [(RIGHT, CRASHED, CRASHED, CRASHED)]

    def take_faults(self) -> list[Fault]:
        return [Fault("toy:brevity", Outcome.TIMED_OUT, 2, "no answer within 5 s")]


def judge(meter: Meter, **scoring: Any) -> Judge:
    return Judge(FailingScorer(), get_template("plain"), ScoringSection(**scoring), meter)  # type: ignore[arg-type]


def test_too_many_failures_end_the_run() -> None:
    with pytest.raises(UserError, match=r"scoring.max_failed_frac=0.5: on 75% of the completions of step 7") as caught:
        judge(Meter()).score([GROUP], 7)
    assert "toy:brevity: timed_out: no answer within 5 s" in str(caught.value)


def test_a_recipe_may_be_content_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter()
    with caplog.at_level(logging.WARNING):
        [scored] = judge(meter, when_failing="warn").score([GROUP], 7)
    assert scored.scores == (RIGHT, CRASHED, CRASHED, CRASHED)
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("scoring.max_failed_frac=0.5: on 75% of the completions of step 7 a verdict")
    assert "\n" not in line
    assert meter.notes() == {"score/failed_frac": 0.75}


def test_what_the_recipe_allows_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    judge(Meter(), max_failed_frac=0.75).score([GROUP], 7)
    assert caplog.records == []

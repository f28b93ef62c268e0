"""What a run does when too many verdicts or rewards fail."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from data.problem import Problem
from data.templates import get_template
from grpo.errors import UserError
from grpo.phases import PhaseClock
from grpo.recipe.sections import ScoringSection
from grpo.records import Completion, Group, Prompt
from grpo.rollout.scoring import GroupScorer, open_scorer
from rewards.records import Outcome, Response, Score, ScoreRequest
from rewards.scorer import Fault
from rewards.spec import RewardSpec

CRASHED = Score(0.0, {"correctness": None}, Outcome.CRASHED, None)
RIGHT = Score(1.0, {"correctness": 1.0}, Outcome.CORRECT, "1")
GROUP = Group(
    Prompt(Problem("toy/train/0", "?", "1", "integer", "toy", 0), (3,)),
    (Completion((5,), (-0.5,), "1", "stop"),) * 4,
    version=0,
    position=0,
)


class FailingScorer:
    """Group by group, what is told to it: verdicts, and the rewards that failed."""

    def __init__(self, *groups: tuple[tuple[Score, ...], list[Fault]]) -> None:
        self._groups = list(groups)

    def submit(self, request: ScoreRequest) -> None:
        assert len(request.responses) == 4

    def collect_first(self) -> tuple[tuple[Score, ...], list[Fault]]:
        return self._groups.pop(0)


SCORES = (RIGHT, CRASHED, CRASHED, CRASHED)
FAULT = Fault("toy:brevity", Outcome.TIMED_OUT, 4, "no answer within 5 s")
SOUND = ((RIGHT,) * 4, [])


def group_scorer(clock: PhaseClock, *groups: tuple[tuple[Score, ...], list[Fault]], **scoring: Any) -> GroupScorer:
    scorer = FailingScorer(*(groups or [(SCORES, [])]))
    return GroupScorer(scorer, get_template("plain"), ScoringSection(**scoring), clock)  # type: ignore[arg-type]


def test_too_many_failures_end_the_run() -> None:
    groups = (SCORES, []), ((RIGHT,) * 4, [FAULT])
    with pytest.raises(UserError, match=r"scoring.max_failed_frac=0.5: on 88% of the completions of step 7") as caught:
        group_scorer(PhaseClock(), *groups).score([GROUP] * 2, 7)
    assert "toy:brevity: timed_out: no answer within 5 s" in str(caught.value)


def test_a_recipe_may_be_content_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    clock = PhaseClock()
    with caplog.at_level(logging.WARNING):
        [scored] = group_scorer(clock, when_failing="warn").score([GROUP], 7)
    assert scored.scores == (RIGHT, CRASHED, CRASHED, CRASHED)
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("scoring.max_failed_frac=0.5: on 75% of the completions of step 7 a verdict")
    assert "\n" not in line
    assert clock.notes() == {"score/failed_frac": 0.75}


def test_what_the_recipe_allows_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    group_scorer(PhaseClock(), max_failed_frac=0.75).score([GROUP], 7)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("groups", "share"),
    [
        ([SOUND, SOUND], 0.0),
        ([(SCORES, []), SOUND], 3 / 8),
        ([(SCORES, [FAULT]), SOUND], 4 / 8),
        ([SOUND, ((RIGHT,) * 4, [FAULT, replace(FAULT, reward="toy:other")])], 4 / 8),
        ([(SCORES, []), ((RIGHT,) * 4, [FAULT])], 7 / 8),
        ([((RIGHT,) * 4, [FAULT]), ((RIGHT,) * 4, [replace(FAULT, reward="toy:other")])], 8 / 8),
    ],
    ids=["none", "verdicts", "both on one group", "two rewards on one group", "on two groups", "two rewards on two"],
)
def test_a_completion_that_failed_twice_counts_once(
    groups: list[tuple[tuple[Score, ...], list[Fault]]], share: float
) -> None:
    clock = PhaseClock()
    group_scorer(clock, *groups, max_failed_frac=1.0).score([GROUP] * 2, 7)
    assert clock.notes() == {"score/failed_frac": share}


def test_groups_are_collected_one_by_one_with_their_own_faults() -> None:
    rewards = [RewardSpec(name="l1_exact", options={"target_column": "target"})]
    with open_scorer(rewards, ScoringSection()) as scorer:
        for number, columns in enumerate([{"target": 5}, {}, {"target": 5}]):
            text = f"\\boxed{{{number}}}"
            response = Response(text, 5, False)
            scorer.submit(ScoreRequest("", "", "1", "math", (response,), answer_style="boxed", columns=columns))
        found = [scorer.collect_first() for _ in range(3)]
    assert [score.outcome for [score], _ in found] == ["wrong", "correct", "wrong"]
    assert [[fault.reward for fault in faults] for _, faults in found] == [[], ["l1_exact"], []]

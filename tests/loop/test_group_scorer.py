"""What a run does when too many verdicts or rewards fail."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from groups import completion_of, prompt_of

from data.templates import get_template
from grpo.errors import UserError
from grpo.parallel.world import SoleWorld, World
from grpo.phases import PhaseClock
from grpo.recipe.sections import ScoringSection
from grpo.records import Group
from grpo.rollout.scoring import Failures, GroupScorer, open_scorer
from rewards.records import Outcome, Response, Score, ScoreRequest
from rewards.scorer import Fault
from rewards.spec import RewardSpec

CRASHED = Score(0.0, {"correctness": None}, Outcome.CRASHED, None)
RIGHT = Score(1.0, {"correctness": 1.0}, Outcome.CORRECT, "1")
ALONE = SoleWorld(torch.device("cpu"))
GROUP = Group(
    prompt_of((3,)),
    (completion_of((5,), -0.5, "1"),) * 4,
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


def scorer(
    clock: PhaseClock, *groups: tuple[tuple[Score, ...], list[Fault]], world: World = ALONE, **scoring: Any
) -> GroupScorer:
    workers = FailingScorer(*(groups or [(SCORES, [])]))
    return GroupScorer(workers, get_template("plain"), ScoringSection(**scoring), clock, world)  # type: ignore[arg-type]


def test_too_many_failures_end_the_run() -> None:
    groups = (SCORES, []), ((RIGHT,) * 4, [FAULT])
    with pytest.raises(UserError, match=r"scoring.max_failed_frac=0.5: on 88% of the completions of step 7") as caught:
        scorer(PhaseClock(), *groups).score([GROUP] * 2, 7)
    assert "toy:brevity: timed_out: no answer within 5 s" in str(caught.value)


def test_a_recipe_may_be_content_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    clock = PhaseClock()
    with caplog.at_level(logging.WARNING):
        [scored] = scorer(clock, when_failing="warn").score([GROUP], 7)
    assert scored.scores == (RIGHT, CRASHED, CRASHED, CRASHED)
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("scoring.max_failed_frac=0.5: on 75% of the completions of step 7 a verdict")
    assert "\n" not in line
    assert clock.notes() == {"score/failed_frac": 0.75}


def test_what_the_recipe_allows_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    scorer(PhaseClock(), max_failed_frac=0.75).score([GROUP], 7)
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
    scorer(clock, *groups, max_failed_frac=1.0).score([GROUP] * 2, 7)
    assert clock.notes() == {"score/failed_frac": share}


class SeveralRanks(SoleWorld):
    """The first of two ranks; the other one's part of what is gathered is told to it."""

    def __init__(self, other: Failures) -> None:
        super().__init__(torch.device("cpu"))
        self._other = other

    def gather(self, item: Any) -> list[Any]:
        return [item, self._other]


@pytest.mark.parametrize(
    ("other", "share"),
    [(Failures(12, 0, ()), 3 / 16), (Failures(4, 4, ("  a fault",)), 7 / 8)],
    ids=["sound", "failing"],
)
def test_failures_are_those_of_all_ranks_together(other: Failures, share: float) -> None:
    """Three of this rank's four completions failed: that is too much for it alone, but not beside twelve sound ones."""
    clock, world = PhaseClock(), SeveralRanks(other)
    if share < 0.5:
        scorer(clock, world=world).score([GROUP], 7)
    else:
        with pytest.raises(UserError, match=r"on 88% of the completions of step 7(.|\n)*  a fault"):
            scorer(clock, world=world).score([GROUP], 7)
    assert clock.notes() == {"score/failed_frac": share}


def test_groups_are_collected_one_by_one_with_their_own_faults() -> None:
    rewards = [RewardSpec(name="l1_exact", options={"target_column": "target"})]
    with open_scorer(rewards, ScoringSection()) as workers:
        for number, columns in enumerate([{"target": 5}, {}, {"target": 5}]):
            text = f"\\boxed{{{number}}}"
            response = Response(text, 5, False)
            workers.submit(ScoreRequest("", "", "1", "math", (response,), answer_style="boxed", columns=columns))
        found = [workers.collect_first() for _ in range(3)]
    assert [score.outcome for [score], _ in found] == ["wrong", "correct", "wrong"]
    assert [[fault.reward for fault in faults] for _, faults in found] == [[], ["l1_exact"], []]

"""Answers to be judged, each of them once, and by a worker only where that is needed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from rewards.answer_policy import AnswerPolicy
from rewards.checkers.quick import quick_verdict
from rewards.records import Outcome, Verdict
from rewards.workers.pool import CallResult, WorkerPool
from rewards.workers.worker import Call

OUTCOME_OF_FAILURE = {"timed_out": Outcome.TIMED_OUT, "crashed": Outcome.CRASHED}


Asked = tuple[str, str, str]
"""Checker, gold and answer."""


class Inquiry:
    """Distinct answers: those that can be judged here and now are, the others become calls for a worker."""

    def __init__(self, policy: AnswerPolicy) -> None:
        self._policy = policy
        self._verdicts: dict[Asked, Verdict] = {}
        self._open: dict[Asked, None] = {}

    def ask(self, checker: str, gold: str, answer: str) -> Asked:
        """Take in one extracted answer; gives what `verdict` knows it by."""
        asked = checker, gold, answer
        if asked not in self._verdicts and asked not in self._open:
            began = time.perf_counter()
            if quick := quick_verdict(checker, gold, answer, self._policy):
                self._verdicts[asked] = Verdict(quick.outcome, quick.reason, time.perf_counter() - began)
            else:
                self._open[asked] = None
        return asked

    @property
    def open_calls(self) -> tuple[Call, ...]:
        """What a worker has to be asked, in the order of first asking."""
        return tuple(Call("judge", asked) for asked in self._open)

    def answer(self, results: Sequence[CallResult]) -> None:
        """Take in what the workers made of `open_calls`, in the same order."""
        self._verdicts.update(zip(self._open, map(_as_verdict, results), strict=True))
        self._open.clear()

    def verdict(self, asked: Asked) -> Verdict:
        return self._verdicts[asked]


def submit_in_jobs(pool: WorkerPool, calls: Sequence[Call], calls_per_job: int) -> list[Future[list[CallResult]]]:
    """Hand calls to the workers, several at a time, so that handing over costs little and all workers get some."""
    return [pool.submit(calls[start : start + calls_per_job]) for start in range(0, len(calls), calls_per_job)]


def results_of(jobs: Iterable[Future[list[CallResult]]]) -> list[CallResult]:
    """Wait for jobs: the results of their calls, in order."""
    return [result for job in jobs for result in job.result()]


def _as_verdict(result: CallResult) -> Verdict:
    """The verdict that a call of `judge` brought; a call that was killed has one as well."""
    if result.status != "done":
        return Verdict(OUTCOME_OF_FAILURE[result.status], result.detail, result.wall_s)
    outcome, reason, cpu_s = result.value
    return Verdict(Outcome(outcome), reason, result.wall_s, cpu_s)

"""Many answers, each distinct one verified once: at once where that takes microseconds, else by a worker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from rewards.answer_policy import AnswerPolicy
from rewards.checkers.quick import quick_verdict
from rewards.records import Outcome, Verdict
from rewards.workers.job import CallResult
from rewards.workers.pool import WorkerPool
from rewards.workers.worker import Call

OUTCOME_OF_FAILURE = {"timed_out": Outcome.TIMED_OUT, "crashed": Outcome.CRASHED}
"""The outcome for each status of a call that brought no result."""

AnswerKey = tuple[str, str, str]
"""Checker, gold and answer: together they decide the verdict."""


class DistinctAnswers:
    """A set of answers and their verdicts. Use it in this order: `add` all, have `open_calls` worked out, `resolve`.

    Plain numbers get their verdict in `add`; every other distinct answer becomes one call for a worker.
    """

    def __init__(self, policy: AnswerPolicy) -> None:
        self._policy = policy
        self._verdicts: dict[AnswerKey, Verdict] = {}
        self._open: dict[AnswerKey, None] = {}

    def add(self, checker: str, gold: str, answer: str) -> AnswerKey:
        """Add an extracted answer, unless it is there already. Returns the key to look its verdict up by."""
        key = checker, gold, answer
        if key not in self._verdicts and key not in self._open:
            began = time.perf_counter()
            if quick := quick_verdict(checker, gold, answer, self._policy):
                self._verdicts[key] = Verdict(quick.outcome, quick.reason, time.perf_counter() - began)
            else:
                self._open[key] = None
        return key

    @property
    def open_calls(self) -> tuple[Call, ...]:
        """One call for each answer that still has no verdict, in the order of adding."""
        return tuple(Call("verify", key) for key in self._open)

    def resolve(self, results: Sequence[CallResult]) -> None:
        """Keep the verdicts that the workers found: one result for each of `open_calls`, in the same order."""
        self._verdicts.update(zip(self._open, map(_verdict_of, results), strict=True))
        self._open.clear()

    def verdict(self, key: AnswerKey) -> Verdict:
        """The verdict on an answer. Raises KeyError while its call is still open."""
        return self._verdicts[key]


def submit_in_jobs(pool: WorkerPool, calls: Sequence[Call], calls_per_job: int) -> list[Future[list[CallResult]]]:
    """Submit calls in jobs of several, so that a call costs little overhead and all workers get some."""
    return [pool.submit(calls[start : start + calls_per_job]) for start in range(0, len(calls), calls_per_job)]


def results_of(jobs: Iterable[Future[list[CallResult]]]) -> list[CallResult]:
    """Wait for jobs: the results of their calls, in order."""
    return [result for job in jobs for result in job.result()]


def _verdict_of(result: CallResult) -> Verdict:
    """The verdict that a call of "verify" brought; a call that was killed, or crashed, has one as well."""
    if result.status != "done":
        return Verdict(OUTCOME_OF_FAILURE[result.status], result.detail, result.wall_s)
    outcome, reason, cpu_s = result.value
    return Verdict(Outcome(outcome), reason, result.wall_s, cpu_s)

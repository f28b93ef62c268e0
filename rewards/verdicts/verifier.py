"""Verdicts on answers without rewards and groups: for scripts, benchmarks and ``python -m rewards.verify``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from rewards.answer_policy import DEFAULT_POLICY, AnswerPolicy
from rewards.answers.extract import ANSWER, END_THINK, THINK, Extracted, extract
from rewards.checkers import find_checker
from rewards.records import AnswerStyle, Outcome, Verdict
from rewards.verdicts.distinct import AnswerKey, DistinctAnswers, results_of, submit_in_jobs
from rewards.workers.pool import WorkerPool
from rewards.workers.worker import SetUp

Level = Literal["answer", "completion", "auto"]

_CALLS_PER_JOB = 16


@dataclass(frozen=True)
class Question:
    """A prediction to be verified against a gold.

    Level ``answer``: the prediction is the bare answer; ``completion``: the answer has to be found in it, in its
    ``<answer>`` block if it has one, else in its last box; ``auto``: a prediction with tags or a box is a completion.
    """

    gold: str
    prediction: str
    level: Level = "auto"
    checker: str = "math"


class Verifier:
    """Verifies predictions in worker processes that can be killed.

    `deadline_s` bounds each verdict in wall-clock seconds, from when a worker takes it; `memory_bytes` the memory
    that it may allocate. May be shared between threads.
    """

    def __init__(
        self,
        *,
        num_workers: int = 1,
        deadline_s: float = 5.0,
        memory_bytes: int = 2 << 30,
        policy: AnswerPolicy = DEFAULT_POLICY,
    ) -> None:
        self._policy = policy
        self._pool = WorkerPool(num_workers, deadline_s, SetUp(memory_bytes=memory_bytes, policy=policy))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the workers. Safe to call twice."""
        self._pool.close()

    def verdicts(self, questions: Sequence[Question]) -> list[Verdict]:
        """One verdict a question, in order; equal ones are verified once. Raises ValueError for an unknown checker."""
        return self.submit(questions)()

    def submit(self, questions: Sequence[Question]) -> Callable[[], list[Verdict]]:
        """Begin to verify questions and return at once. The function that it returns waits for the verdicts; call it
        once."""
        answers = DistinctAnswers(self._policy)
        keys = {question: self._add(question, answers) for question in dict.fromkeys(questions)}
        jobs = submit_in_jobs(self._pool, answers.open_calls, _CALLS_PER_JOB)

        def collect() -> list[Verdict]:
            answers.resolve(results_of(jobs))
            found = {
                question: key if isinstance(key, Verdict) else answers.verdict(key) for question, key in keys.items()
            }
            return [found[question] for question in questions]

        return collect

    def _add(self, question: Question, answers: DistinctAnswers) -> AnswerKey | Verdict:
        """Extract the answer and add it: its key, or the verdict itself where there is no answer to verify."""
        find_checker(question.checker)
        began = time.perf_counter()
        found = _extracted(question, self._policy)
        if found.answer is None:
            return Verdict(found.outcome or Outcome.NO_ANSWER, found.reason, time.perf_counter() - began)
        return answers.add(question.checker, question.gold, found.answer)


def _extracted(question: Question, policy: AnswerPolicy) -> Extracted:
    text = question.prediction
    if not _is_completion(question):
        return Extracted(text)
    style: AnswerStyle = "tags" if ANSWER in text.rpartition(END_THINK)[2] else "boxed"
    return extract(text, False, style, policy.several_boxes)


def _is_completion(question: Question) -> bool:
    if question.level != "auto":
        return question.level == "completion"
    return any(mark in question.prediction for mark in (THINK, END_THINK, ANSWER, "\\boxed", "\\fbox"))

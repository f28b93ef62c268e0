"""Scores groups of completions: verdicts and the rewards that read text come from workers, the rest is done here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

from rewards.answer_policy import DEFAULT_POLICY, AnswerPolicy
from rewards.answers.extract import Extracted, extract
from rewards.checkers import find_checker
from rewards.errors import PoolError
from rewards.parts.builtin import Parts, imports_more, parts_without_worker, reads_text
from rewards.parts.checked import CheckedResponse, apply_format_gate
from rewards.records import Outcome, Score, ScoreRequest, Verdict
from rewards.spec import RewardSpec
from rewards.verdicts.distinct import OUTCOME_OF_FAILURE, AnswerKey, DistinctAnswers, results_of, submit_in_jobs
from rewards.workers.job import CallResult
from rewards.workers.pool import WorkerPool
from rewards.workers.worker import Call, SetUp

_GOLDS_PER_JOB = 32


@dataclass(frozen=True)
class Fault:
    """A reward that gave no parts to a group: TIMED_OUT or CRASHED, for how many completions, and why."""

    reward: str
    outcome: Outcome
    num_completions: int
    detail: str


@dataclass(frozen=True)
class _Submitted:
    """A request under way. Its job holds the open calls of `answers`, then one call for each text reward."""

    request: ScoreRequest
    extracted: tuple[Extracted, ...]
    answers: DistinctAnswers
    keys: tuple[AnswerKey | None, ...]
    """For each completion the key of its answer in `answers`, or None where there is no answer."""
    job: Future[list[CallResult]] | None


class Scorer:
    """Scores requests with a set of rewards; see `RewardSpec` for what a recipe may name.

    ``reward = Σ weight · part`` over the parts that are not None. Answers are verified whether or not `correctness` is
    among the rewards. Requests are worked on from the moment they are submitted.

    With `format_gates` every outcome-based reward takes a right answer in a completion that is not well formed for a
    wrong one (`rewards.parts.checked.apply_format_gate` says why); the outcome in the score stays what it is.
    `policy` decides what graders disagree about.

    `deadline_s` bounds each verdict and each reward's call on a group, `memory_bytes` the memory either may allocate.
    Construction imports users' functions and optional packages in a worker; ValueError when that fails.
    """

    def __init__(
        self,
        specs: Sequence[RewardSpec],
        *,
        num_workers: int = 1,
        deadline_s: float = 5.0,
        memory_bytes: int = 2 << 30,
        format_gates: bool = False,
        policy: AnswerPolicy = DEFAULT_POLICY,
    ) -> None:
        self._specs = tuple(specs)
        _refuse_duplicates([spec.name for spec in specs])
        self._text_rewards = tuple(spec for spec in specs if reads_text(spec))
        self._format_gates = format_gates
        self._policy = policy
        self._submitted: list[_Submitted] = []
        self._faults: list[Fault] = []
        self._is_closed = False
        self._pool = WorkerPool(num_workers, deadline_s, SetUp(self._text_rewards, memory_bytes, policy))
        if any(imports_more(spec) for spec in specs):
            self._await_first_worker()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, request: ScoreRequest) -> None:
        """Begin to score one group; returns at once. Raises ValueError for an unknown checker, PoolError if closed."""
        if self._is_closed:
            raise PoolError("the scorer is closed")
        find_checker(request.checker)
        form = request.opens_think, request.answer_style, self._policy.several_boxes
        extracted = tuple(extract(response.text, *form) for response in request.responses)
        answers = DistinctAnswers(self._policy)
        keys = tuple(
            None if one.answer is None else answers.add(request.checker, request.gold, one.answer) for one in extracted
        )
        calls = [*answers.open_calls]
        calls += [Call("text_reward", (position, request)) for position in range(len(self._text_rewards))]
        job = self._pool.submit(calls) if calls else None
        self._submitted.append(_Submitted(request, extracted, answers, keys, job))

    def collect(self) -> list[tuple[Score, ...]]:
        """Wait for everything submitted since the last `collect`: its scores, in the order of submission."""
        submitted, self._submitted = self._submitted, []
        return [self._wait_for(item) for item in submitted]

    def collect_first(self) -> tuple[tuple[Score, ...], list[Fault]]:
        """Wait for the group submitted first, whatever follows it: its scores, and the rewards that failed on it."""
        scores = self._wait_for(self._submitted.pop(0))
        return scores, self.take_faults()

    def take_faults(self) -> list[Fault]:
        """The rewards that failed on a group since the last call."""
        faults, self._faults = self._faults, []
        return faults

    def check_golds(self, pairs: Sequence[tuple[str, str]]) -> list[str | None]:
        """For each (checker, gold) the reason why the gold is unusable, or None."""
        for checker, _ in pairs:
            find_checker(checker)
        calls = [Call("check_gold", pair) for pair in pairs]
        return [_gold_fault(result) for result in results_of(submit_in_jobs(self._pool, calls, _GOLDS_PER_JOB))]

    def close(self) -> None:
        """Kill the workers. Safe to call twice."""
        self._is_closed = True
        self._pool.close()

    def _await_first_worker(self) -> None:
        try:
            self._pool.submit([]).result()
        except PoolError as error:
            self.close()
            raise ValueError(str(error)) from error

    def _wait_for(self, item: _Submitted) -> tuple[Score, ...]:
        return self._scores(item, item.job.result() if item.job else [])

    def _scores(self, item: _Submitted, results: Sequence[CallResult]) -> tuple[Score, ...]:
        """One score for each completion; `results` are those of the item's job."""
        num_verdicts = len(item.answers.open_calls)
        item.answers.resolve(results[:num_verdicts])
        verdicts = [
            Verdict(one.outcome or Outcome.NO_ANSWER, one.reason) if key is None else item.answers.verdict(key)
            for one, key in zip(item.extracted, item.keys, strict=True)
        ]
        checked = [
            CheckedResponse(response, verdict.outcome, one.answer)
            for response, verdict, one in zip(item.request.responses, verdicts, item.extracted, strict=True)
        ]
        if self._format_gates:
            checked = apply_format_gate(item.request, checked)
        from_workers = dict(zip((spec.name for spec in self._text_rewards), results[num_verdicts:], strict=True))
        columns = [self._parts(spec, item.request, checked, from_workers.get(spec.name)) for spec in self._specs]
        rows = zip(*columns, strict=True) if columns else [()] * len(verdicts)
        return tuple(
            self._score(parts, verdict, one.answer)
            for parts, verdict, one in zip(rows, verdicts, item.extracted, strict=True)
        )

    def _parts(
        self, spec: RewardSpec, request: ScoreRequest, checked: Sequence[CheckedResponse], result: CallResult | None
    ) -> Parts:
        """One part of a reward for each completion: from the worker's result where there is one, else computed here."""
        if result is not None and result.status == "done":
            parts: Parts = result.value
            return parts
        if result is not None:
            return self._failed(spec, OUTCOME_OF_FAILURE[result.status], len(checked), result.detail)
        try:
            return parts_without_worker(spec, request, checked)
        except ValueError as error:
            return self._failed(spec, Outcome.CRASHED, len(checked), str(error))

    def _failed(self, spec: RewardSpec, outcome: Outcome, num_completions: int, detail: str) -> Parts:
        self._faults.append(Fault(spec.name, outcome, num_completions, detail))
        return [None] * num_completions

    def _score(self, parts: Parts, verdict: Verdict, answer: str | None) -> Score:
        named = dict(zip((spec.name for spec in self._specs), parts, strict=True))
        reward = sum(spec.weight * part for spec in self._specs if (part := named[spec.name]) is not None)
        return Score(float(reward), named, verdict.outcome, answer, verdict.reason, verdict.cpu_s)


def _refuse_duplicates(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"rewards.name={name!r}: named {names.count(name)} times; name each reward once")


def _gold_fault(result: CallResult) -> str | None:
    if result.status == "done":
        reason: str | None = result.value
        return reason
    return f"{OUTCOME_OF_FAILURE[result.status].value} when verified against itself: {result.detail}"

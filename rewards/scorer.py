"""Scores groups of completions: verdicts and text rewards in the workers, the arithmetic on them here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

from rewards.checkers import find_checker
from rewards.correctness import correctness_reward
from rewards.errors import PoolError
from rewards.extract import Extracted, extract
from rewards.length import length_reward, overlong_reward
from rewards.options import CorrectnessOptions, FormatOptions, LanguageOptions, LengthOptions, OverlongOptions
from rewards.pool import CallResult, WorkerPool
from rewards.spec import RewardSpec
from rewards.types import Outcome, Score, ScoreRequest, Verdict
from rewards.worker import Call, SetUp

_GOLDS_PER_JOB = 32
_OUTCOME_OF_FAILURE = {"timed_out": Outcome.TIMED_OUT, "crashed": Outcome.CRASHED}
_TEXT_OPTIONS = (FormatOptions, LanguageOptions)


@dataclass(frozen=True)
class Fault:
    """A reward that gave no parts to a group: TIMED_OUT or CRASHED, for how many completions, and why."""

    reward: str
    outcome: Outcome
    num_completions: int
    detail: str


@dataclass(frozen=True)
class _Submitted:
    """A request under way. The job's calls are one verdict for each of `answers`, then the text rewards."""

    request: ScoreRequest
    extracted: tuple[Extracted, ...]
    answers: tuple[str, ...]
    job: Future[list[CallResult]]


class Scorer:
    """Scores requests with a set of rewards; see `RewardSpec` for what a recipe may name.

    ``reward = Σ weight · part`` over the parts that are not None. The outcome is judged whether or not
    `correctness` is among the rewards. Requests are worked on from the moment they are submitted.

    `deadline_s` bounds each verdict and each reward's call on a group, `memory_bytes` the memory either may
    allocate. Construction imports users' functions in a worker and raises ValueError when that fails.
    """

    def __init__(
        self,
        specs: Sequence[RewardSpec],
        *,
        num_workers: int = 1,
        deadline_s: float = 5.0,
        memory_bytes: int = 2 << 30,
    ) -> None:
        self._specs = tuple(specs)
        _refuse_duplicates([spec.name for spec in specs])
        self._text_rewards = tuple(spec for spec in specs if _reads_text(spec))
        self._submitted: list[_Submitted] = []
        self._faults: list[Fault] = []
        self._pool = WorkerPool(num_workers, deadline_s, SetUp(self._text_rewards, memory_bytes))
        if any(spec.is_user_function for spec in specs):
            self._await_first_worker()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(self, request: ScoreRequest) -> None:
        """Begin to score one group; returns at once. Raises ValueError for an unknown checker."""
        find_checker(request.checker)
        extracted = tuple(
            extract(response.text, request.opens_think, request.answer_style) for response in request.responses
        )
        answers = tuple(dict.fromkeys(item.answer for item in extracted if item.answer is not None))
        verdicts = [Call("judge", (request.checker, request.gold, answer)) for answer in answers]
        rewards = [Call("text_reward", (position, request)) for position in range(len(self._text_rewards))]
        job = self._pool.submit([*verdicts, *rewards])
        self._submitted.append(_Submitted(request, extracted, answers, job))

    def collect(self) -> list[tuple[Score, ...]]:
        """Wait for everything submitted since the last `collect`: its scores, in the order of submission."""
        submitted, self._submitted = self._submitted, []
        return [self._scores(item, item.job.result()) for item in submitted]

    def take_faults(self) -> list[Fault]:
        """The rewards that failed on a group since the last call."""
        faults, self._faults = self._faults, []
        return faults

    def check_golds(self, pairs: Sequence[tuple[str, str]]) -> list[str | None]:
        """For each (checker, gold) the reason why the gold is unusable, or None."""
        for checker, _ in pairs:
            find_checker(checker)
        calls = [Call("check_gold", pair) for pair in pairs]
        starts = range(0, len(calls), _GOLDS_PER_JOB)
        jobs = [self._pool.submit(calls[start : start + _GOLDS_PER_JOB]) for start in starts]
        return [_gold_fault(result) for job in jobs for result in job.result()]

    def close(self) -> None:
        """Kill the workers. Safe to call twice."""
        self._pool.close()

    def _await_first_worker(self) -> None:
        try:
            self._pool.submit([]).result()
        except PoolError as error:
            self.close()
            raise ValueError(str(error)) from error

    def _scores(self, item: _Submitted, results: Sequence[CallResult]) -> tuple[Score, ...]:
        verdicts, texts = results[: len(item.answers)], results[len(item.answers) :]
        verdict_on = {answer: as_verdict(result) for answer, result in zip(item.answers, verdicts, strict=True)}
        found = [
            Verdict(one.outcome, one.reason) if one.outcome else verdict_on[one.answer or ""] for one in item.extracted
        ]
        outcomes = [verdict.outcome for verdict in found]
        by_text = {spec.name: result for spec, result in zip(self._text_rewards, texts, strict=True)}
        columns = [self._parts(spec, item.request, outcomes, by_text) for spec in self._specs]
        rows = zip(*columns, strict=True) if columns else [()] * len(outcomes)
        return tuple(
            self._score(parts, verdict, one.answer)
            for parts, verdict, one in zip(rows, found, item.extracted, strict=True)
        )

    def _parts(
        self,
        spec: RewardSpec,
        request: ScoreRequest,
        outcomes: Sequence[Outcome],
        by_text: dict[str, CallResult],
    ) -> Sequence[float | None]:
        """One part for each response."""
        if spec.name in by_text:
            return self._text_parts(spec, by_text[spec.name], len(outcomes))
        num_tokens = [response.num_tokens for response in request.responses]
        match spec.parsed_options():
            case CorrectnessOptions() as options:
                return correctness_reward(outcomes, options)
            case LengthOptions() as options:
                return length_reward(num_tokens, outcomes, request.step, options)
            case OverlongOptions() as options:
                return overlong_reward(num_tokens, options)
        raise AssertionError(f"{spec.name} has no place to be computed")

    def _text_parts(self, spec: RewardSpec, result: CallResult, num_responses: int) -> Sequence[float | None]:
        if result.status == "done":
            parts: list[float | None] = result.value
            return parts
        outcome = _OUTCOME_OF_FAILURE[result.status]
        self._faults.append(Fault(spec.name, outcome, num_responses, result.detail))
        return [None] * num_responses

    def _score(self, parts: Sequence[float | None], verdict: Verdict, answer: str | None) -> Score:
        reward = sum(spec.weight * part for spec, part in zip(self._specs, parts, strict=True) if part is not None)
        names = [spec.name for spec in self._specs]
        return Score(
            float(reward), dict(zip(names, parts, strict=True)), verdict.outcome, answer, verdict.reason, verdict.cpu_s
        )


def _reads_text(spec: RewardSpec) -> bool:
    return spec.is_user_function or isinstance(spec.parsed_options(), _TEXT_OPTIONS)


def _refuse_duplicates(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"rewards.name={name!r}: named {names.count(name)} times; name each reward once")


def as_verdict(result: CallResult) -> Verdict:
    """The verdict that a call of `judge` brought; a call that was killed has one as well."""
    if result.status != "done":
        return Verdict(_OUTCOME_OF_FAILURE[result.status], result.detail, result.wall_s)
    outcome, reason, cpu_s = result.value
    return Verdict(Outcome(outcome), reason, result.wall_s, cpu_s)


def _gold_fault(result: CallResult) -> str | None:
    if result.status == "done":
        reason: str | None = result.value
        return reason
    return f"{_OUTCOME_OF_FAILURE[result.status].value} when verified against itself: {result.detail}"

"""The verifier alone, for scripts and tests: ``python -m rewards.verify --jsonl FILE``, and `verify_answer`.

FILE has rows ``{"id", "gold", "prediction", "level"}`` and optionally ``"checker"`` (default math). Level ``answer``
means that the prediction is the bare answer, ``completion`` that the answer has to be found in it: in its
``<answer>`` block if it has one, else in its last box. Without a level, a prediction with tags or a box is a
completion. For each row, in the same order, one row ``{"id", "outcome", "reward", "wall_s"}`` is written, with a
``"reason"`` where there is one; reward is 1.0 for a correct answer and 0.0 for all else, wall_s the seconds that the
verdict took. A row that cannot be read has the outcome ``bad_row``, is named on stderr, and does not end the run.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from rewards.checkers import CHECKERS, find_checker
from rewards.checkers.quick import quick_verdict
from rewards.errors import did_you_mean
from rewards.extract import ANSWER, END_THINK, THINK, extract
from rewards.limits import num_cpus
from rewards.policy import DEFAULT_POLICY, AnswerPolicy
from rewards.pool import CallResult, WorkerPool
from rewards.scorer import as_verdict
from rewards.types import Outcome, Verdict
from rewards.worker import Call, SetUp

Level = Literal["answer", "completion", "auto"]

_LEVELS: tuple[Level, ...] = ("answer", "completion", "auto")
_CALLS_PER_JOB = 16
_QUESTIONS_AT_ONCE = 4096


@dataclass(frozen=True)
class Question:
    """A prediction to be judged against a gold."""

    gold: str
    prediction: str
    level: Level = "auto"
    checker: str = "math"


class Verifier:
    """Judges predictions in killable workers.

    `deadline_s` bounds each verdict in wall-clock seconds, `memory_bytes` the memory that it may allocate.
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
        """One verdict a question, in order; equal ones are judged once. Raises ValueError for an unknown checker."""
        found: dict[Question, Verdict] = {}
        calls: dict[tuple[str, str, str], int] = {}
        asked: dict[Question, int] = {}
        for question in dict.fromkeys(questions):
            verdict, answer = self._at_once(question)
            if verdict is not None:
                found[question] = verdict
            else:
                asked[question] = calls.setdefault((question.checker, question.gold, answer), len(calls))
        results = self._ask([Call("judge", arguments) for arguments in calls])
        found |= {question: as_verdict(results[place]) for question, place in asked.items()}
        return [found[question] for question in questions]

    def _at_once(self, question: Question) -> tuple[Verdict | None, str]:
        """The verdict where none needs a worker, and the extracted answer."""
        find_checker(question.checker)
        began = time.perf_counter()
        answer = question.prediction
        if _is_completion(question):
            tail = answer.rpartition(END_THINK)[2]
            style: Literal["tags", "boxed"] = "tags" if ANSWER in tail else "boxed"
            extracted = extract(answer, False, style, self._policy.several_boxes)
            if extracted.answer is None:
                outcome = extracted.outcome or Outcome.NO_ANSWER
                return Verdict(outcome, extracted.reason, time.perf_counter() - began), ""
            answer = extracted.answer
        verdict = quick_verdict(question.checker, question.gold, answer, self._policy)
        if verdict is None:
            return None, answer
        return Verdict(verdict.outcome, verdict.reason, time.perf_counter() - began), answer

    def _ask(self, calls: Sequence[Call]) -> list[CallResult]:
        starts = range(0, len(calls), _CALLS_PER_JOB)
        jobs: list[Future[list[CallResult]]] = [
            self._pool.submit(calls[start : start + _CALLS_PER_JOB]) for start in starts
        ]
        return [result for job in jobs for result in job.result()]


def _is_completion(question: Question) -> bool:
    if question.level != "auto":
        return question.level == "completion"
    return any(mark in question.prediction for mark in (THINK, END_THINK, ANSWER, "\\boxed", "\\fbox"))


_OWN: dict[int, Verifier] = {}
_OWN_LOCK = threading.Lock()


def verify_answer(gold: str, prediction: str) -> bool:
    """Is the prediction, bare or a whole completion, the gold? Judged by the math checker under default policies.

    Runs in a worker that this process keeps for the purpose: back within 5 s whatever the texts are, and False when
    there is no verdict by then. May be called from any thread.
    """
    with _OWN_LOCK:
        verifier = _OWN.get(os.getpid())
        if verifier is None:
            verifier = _OWN[os.getpid()] = Verifier()
            atexit.register(verifier.close)
    [verdict] = verifier.verdicts([Question(gold, prediction)])
    return verdict.outcome is Outcome.CORRECT


@dataclass(frozen=True)
class _Row:
    """One line of the input: what it asks, or why it cannot be used."""

    number: int
    id: Any
    question: Question | None = None
    fault: str = ""


def read_rows(lines: Iterable[str]) -> Iterator[_Row]:
    """The rows of a JSONL file, bad ones included; numbers count from 0."""
    for number, line in enumerate(lines):
        try:
            fields = json.loads(line)
        except ValueError as error:
            yield _Row(number, None, fault=f"not JSON ({error}); mend the line")
            continue
        if not isinstance(fields, dict):
            yield _Row(number, None, fault="not an object; write {…} on each line")
            continue
        fault = _fault(fields)
        wanted = {key: fields[key] for key in ("gold", "prediction", "level", "checker") if key in fields}
        yield _Row(number, fields.get("id"), None if fault else Question(**wanted), fault)


def _fault(fields: dict[str, Any]) -> str:
    for key in ("gold", "prediction"):
        if not isinstance(fields.get(key), str):
            return f"{key}={fields.get(key)!r}: missing or not text; give it as a string"
    if fields.get("level", "auto") not in _LEVELS:
        return f"level={fields['level']!r}: unknown; use one of {', '.join(_LEVELS)}"
    if (checker := fields.get("checker", "math")) not in CHECKERS:
        return f"checker={checker!r}: no such checker; {did_you_mean(str(checker), CHECKERS)}"
    return ""


def verify_rows(rows: Iterable[_Row], verifier: Verifier) -> Iterator[dict[str, Any]]:
    """What is written for each row, in the same order."""
    rows = iter(rows)
    while chunk := list(islice(rows, _QUESTIONS_AT_ONCE)):
        verdicts = iter(verifier.verdicts([row.question for row in chunk if row.question is not None]))
        for row in chunk:
            if row.question is None:
                print(f"row {row.number}: {row.fault}", file=sys.stderr)
                yield {"id": row.id, "outcome": "bad_row", "reward": 0.0, "wall_s": 0.0, "reason": row.fault}
                continue
            verdict = next(verdicts)
            reward = float(verdict.outcome is Outcome.CORRECT)
            written = {"id": row.id, "outcome": verdict.outcome, "reward": reward, "wall_s": round(verdict.wall_s, 6)}
            yield {**written, "reason": verdict.reason} if verdict.reason else written


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code: 0, or 2 when the file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m rewards.verify", description="Judge answers against golds.")
    parser.add_argument("--jsonl", type=Path, required=True, metavar="FILE", help="rows: id, gold, prediction, level")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the rows go (default: the screen)")
    parser.add_argument("--workers", type=int, default=num_cpus(), help="worker processes (default: one a core)")
    parser.add_argument("--deadline-s", type=float, default=5.0, help="wall-clock seconds for one verdict")
    options = parser.parse_args(arguments)
    if options.workers < 1 or options.deadline_s <= 0:
        parser.error(f"--workers={options.workers}, --deadline-s={options.deadline_s}: must be above 0; give more")
    try:
        source = options.jsonl.open(encoding="utf-8")
    except OSError as error:
        print(f"--jsonl={options.jsonl}: {error.strerror}; give the path of a JSONL file", file=sys.stderr)
        return 2
    with source, Verifier(num_workers=options.workers, deadline_s=options.deadline_s) as verifier:
        written = (json.dumps(row, ensure_ascii=False) for row in verify_rows(read_rows(source), verifier))
        if options.out is None:
            for line in written:
                print(line)
        else:
            with options.out.open("w", encoding="utf-8") as sink:
                sink.writelines(f"{line}\n" for line in written)
    return 0


if __name__ == "__main__":
    sys.exit(main())

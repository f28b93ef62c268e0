"""The rows of ``python -m rewards.verify``: a question in, its verdict out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, get_args

from rewards.checkers import checker_fault
from rewards.errors import did_you_mean
from rewards.jsonl import Row, read_rows
from rewards.records import Outcome, Verdict
from rewards.verdicts.verifier import Level, Question, Verifier
from rewards.workers.ahead import one_ahead

_ROWS_AT_ONCE = 1024


def judge_rows(lines: Iterable[bytes], verifier: Verifier) -> Iterator[dict[str, Any]]:
    """What is written for each line, in the same order; a row that cannot be used is named on stderr.

    The rows behind are judged while those in front are waited for, some thousand at a time.
    """
    for rows, collect in one_ahead(_submitted(read_rows(lines), verifier)):
        verdicts = iter(collect())
        for row, fault in rows:
            if fault is None:
                yield _judged(row, next(verdicts))
            else:
                print(f"row {row.number}: {fault}", file=sys.stderr)
                yield _written(row, "bad_row", 0.0, 0.0, fault)


def _submitted(
    rows: Iterator[Row], verifier: Verifier
) -> Iterator[tuple[list[tuple[Row, str | None]], Callable[[], list[Verdict]]]]:
    """Rows with their faults, and what waits for the verdicts on those without."""
    while chunk := [(row, row.fault or _fault(row.fields)) for row in islice(rows, _ROWS_AT_ONCE)]:
        yield chunk, verifier.submit([_question(row.fields) for row, fault in chunk if fault is None])


def _fault(fields: Mapping[str, Any]) -> str | None:
    for key in ("gold", "prediction"):
        if not isinstance(fields.get(key), str):
            return f"{key}={fields.get(key)!r:.80}: missing or not text; give it as a string"
    if (level := fields.get("level", "auto")) not in get_args(Level):
        return f"level={level!r:.80}: no such level; {did_you_mean(str(level), get_args(Level))}"
    return checker_fault(fields.get("checker", "math"))


def _question(fields: Mapping[str, Any]) -> Question:
    return Question(**{key: fields[key] for key in ("gold", "prediction", "level", "checker") if key in fields})


def _judged(row: Row, verdict: Verdict) -> dict[str, Any]:
    reward = float(verdict.outcome is Outcome.CORRECT)
    return _written(row, verdict.outcome, reward, round(verdict.wall_s, 6), verdict.reason)


def _written(row: Row, outcome: str, reward: float, wall_s: float, reason: str) -> dict[str, Any]:
    written = {"id": row.fields.get("id"), "outcome": outcome, "reward": reward, "wall_s": wall_s}
    return {**written, "reason": reason} if reason else written

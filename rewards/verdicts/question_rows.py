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

RowsWithFaults = list[tuple[Row, str | None]]
"""Rows, each with the reason why it cannot be used, or None."""


def verify_rows(lines: Iterable[bytes], verifier: Verifier) -> Iterator[dict[str, Any]]:
    """What is written for each line, in the same order; a row that cannot be used is named on stderr.

    A thousand rows are verified at a time, and the next thousand is already submitted while these are waited for.
    """
    for rows, collect in one_ahead(_submit_all(read_rows(lines), verifier)):
        verdicts = iter(collect())
        for row, fault in rows:
            if fault is None:
                yield _verdict_row(row, next(verdicts))
            else:
                print(f"row {row.number}: {fault}", file=sys.stderr)
                yield _output_row(row, "bad_row", 0.0, 0.0, fault)


def _submit_all(
    rows: Iterator[Row], verifier: Verifier
) -> Iterator[tuple[RowsWithFaults, Callable[[], list[Verdict]]]]:
    """Some rows at a time, and the function that waits for the verdicts on those that can be used."""
    while chunk := [(row, row.fault or _fault(row.fields)) for row in islice(rows, _ROWS_AT_ONCE)]:
        yield chunk, verifier.submit([_question(row.fields) for row, fault in chunk if fault is None])


def _fault(fields: Mapping[str, Any]) -> str | None:
    """Why a row cannot be used, or None."""
    for key in ("gold", "prediction"):
        if not isinstance(fields.get(key), str):
            return f"{key}={fields.get(key)!r:.80}: missing or not text; give it as a string"
    if (level := fields.get("level", "auto")) not in get_args(Level):
        return f"level={level!r:.80}: no such level; {did_you_mean(str(level), get_args(Level))}"
    return checker_fault(fields.get("checker", "math"))


def _question(fields: Mapping[str, Any]) -> Question:
    return Question(**{key: fields[key] for key in ("gold", "prediction", "level", "checker") if key in fields})


def _verdict_row(row: Row, verdict: Verdict) -> dict[str, Any]:
    reward = float(verdict.outcome is Outcome.CORRECT)
    return _output_row(row, verdict.outcome, reward, round(verdict.wall_s, 6), verdict.reason)


def _output_row(row: Row, outcome: str, reward: float, wall_s: float, reason: str) -> dict[str, Any]:
    written = {"id": row.fields.get("id"), "outcome": outcome, "reward": reward, "wall_s": wall_s}
    return {**written, "reason": reason} if reason else written

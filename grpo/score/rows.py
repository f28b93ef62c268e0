"""The rows of a JSONL file of completions or golds: read one by one, checked, and put together into groups."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from data.golds import several_references
from data.templates import Template
from grpo.errors import UserError
from grpo.rows import closed_parts, lines_of
from rewards.checkers import checker_fault
from rewards.errors import did_you_mean
from rewards.jsonl import Row, read_rows
from rewards.parts.options import LengthOptions
from rewards.records import AnswerStyle, Response, ScoreRequest
from rewards.spec import RewardSpec

Batch = list[list[Row]]
"""Some groups of rows."""

_ROWS_PER_BATCH = 512
_REWARDS_ON_TOKENS = ("length", "cosine", "overlong", "l1_exact", "l1_max")


def columns_needed(rewards: Iterable[RewardSpec]) -> dict[str, str]:
    """The columns that rewards need, each with the name of a reward that needs it."""
    needed = {}
    for spec in rewards:
        if spec.name in _REWARDS_ON_TOKENS:
            needed["num_tokens"] = spec.name
        options = None if spec.is_user_function else spec.parsed_options()
        if isinstance(options, LengthOptions) and options.warmup_steps > 0:
            needed["step"] = spec.name
    return needed


def read_completions(file: Path, needed: Mapping[str, str] | None = None) -> Iterator[Row]:
    """The rows of a file of completions; one that cannot be scored carries its fault.

    Of a run's ``completions.jsonl`` the closed parts beside it are read too.

    A row has ``completion`` (or ``text``) and ``gold`` (a text, or a list of reference answers), and may have
    ``checker`` (default ``math``), ``question``, ``num_tokens``, ``finish``, ``step``, ``opens_think`` and
    ``answer_style`` (else the recipe's template says), and ``group`` (or ``step`` with ``problem_id``): neighbours
    with the same one are scored as one group. It must have the columns of `needed` (see `columns_needed`).
    """
    must_have = needed or {}
    return _read(
        file, lambda fields: _completion_fault(fields) or _gold_fault(fields) or _missing_fault(fields, must_have)
    )


def read_golds(file: Path) -> Iterator[Row]:
    """The rows of a file of golds: ``gold``, and ``checker`` where it is not ``math``."""
    return _read(file, _gold_fault)


def batches(rows: Iterable[Row]) -> Iterator[Batch]:
    """Whole groups, some hundred rows at a time; a row with a fault is a group of its own."""
    batch: Batch = []
    for _, neighbours in itertools.groupby(rows, key=_group_key):
        batch.append(list(neighbours))
        if sum(map(len, batch)) >= _ROWS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def score_request(group: Sequence[Row], template: Template) -> ScoreRequest:
    """The request for a group of rows; what the rows do not say is taken from the template."""
    first = group[0].fields
    return ScoreRequest(
        id=str(group[0].number),
        question=str(first.get("question", "")),
        gold=gold_text(first["gold"]),
        checker=checker_of(first),
        responses=tuple(_response(row.fields) for row in group),
        opens_think=bool(first.get("opens_think", template.opens_think)),
        answer_style=first.get("answer_style", template.answer_style),
        columns=first,
        step=first.get("step", 0),
    )


def gold_text(gold: str | list[str]) -> str:
    """The gold as the one text that checkers read, also where it is a list of reference answers."""
    return gold if isinstance(gold, str) else several_references(gold)


def checker_of(fields: Mapping[str, Any]) -> str:
    """The checker that a row names, or the one for mathematics."""
    return str(fields.get("checker", "math"))


def count_lines(file: Path) -> int:
    """How many rows a file has, those of a run's closed parts included."""
    return sum(1 for _ in lines_of(file))


def require_file(file: Path) -> None:
    """Raise UserError where there is no such file."""
    if not file.is_file() and not closed_parts(file):
        raise UserError(f"FILE={file}: no such file; give a JSONL file")


def _read(file: Path, fault_of: Callable[[Mapping[str, Any]], str | None]) -> Iterator[Row]:
    for row in read_rows(lines_of(file)):
        yield row if row.fault else replace(row, fault=fault_of(row.fields))


def _completion_fault(fields: Mapping[str, Any]) -> str | None:
    if not isinstance(_completion(fields), str):
        return f"completion={_completion(fields)!r:.80}: missing or not text; give it in a column completion or text"
    for name in ("num_tokens", "step"):
        if name in fields and not _is_count(fields[name]):
            return f"{name}={fields[name]!r:.80}: not a whole number from 0 on; give a count"
    style = fields.get("answer_style", "tags")
    if style not in get_args(AnswerStyle):
        return f"answer_style={style!r:.80}: no such style; {did_you_mean(str(style), get_args(AnswerStyle))}"
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _gold_fault(fields: Mapping[str, Any]) -> str | None:
    gold = fields.get("gold")
    texts = gold if isinstance(gold, list) else [gold]
    if not texts or not all(isinstance(text, str) for text in texts):
        return f"gold={gold!r:.80}: missing or not text; give the reference answer, or a list of several"
    return checker_fault(checker_of(fields))


def _missing_fault(fields: Mapping[str, Any], needed: Mapping[str, str]) -> str | None:
    for column, reward in needed.items():
        if column not in fields:
            what = "its number of tokens" if column == "num_tokens" else "the step of training that it is from"
            return f"{column}=None: missing, and the reward {reward!r} depends on it; give {what}"
    return None


def _group_key(row: Row) -> tuple[Any, ...]:
    fields = row.fields
    if row.fault is None and "group" in fields:
        return ("group", fields["group"], fields["gold"], checker_of(fields))
    if row.fault is None and "problem_id" in fields:
        return ("problem", fields.get("step"), fields["problem_id"], fields["gold"], checker_of(fields))
    return ("row", row.number)


def _response(fields: Mapping[str, Any]) -> Response:
    return Response(str(_completion(fields)), fields.get("num_tokens", 0), fields.get("finish") == "length")


def _completion(fields: Mapping[str, Any]) -> object:
    return fields.get("completion", fields.get("text"))

"""The rows of a JSONL file of completions: read one by one, checked, and put together into groups."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from data.golds import several_references
from data.templates import Template
from grpo.errors import UserError
from rewards.checkers import CHECKERS
from rewards.types import AnswerStyle, Response, ScoreRequest

_ROWS_PER_BATCH = 512


@dataclass(frozen=True)
class InputRow:
    """One line of the input, counted from 0: what it says, or why it cannot be used."""

    number: int
    fields: Mapping[str, Any]
    fault: str | None = None


def read_completions(file: Path) -> Iterator[InputRow]:
    """The rows of a file of completions; one that cannot be scored carries its fault.

    A row has ``completion`` (or ``text``) and ``gold`` (a text, or a list of reference answers), and may have
    ``checker`` (default ``math``), ``question``, ``num_tokens``, ``finish``, ``step``, ``opens_think`` and
    ``answer_style`` (else the recipe's template says), and ``group`` (or ``step`` with ``problem_id``): neighbours
    with the same one are scored as one group.
    """
    return _read(file, lambda fields: _completion_fault(fields) or _gold_fault(fields))


def read_golds(file: Path) -> Iterator[InputRow]:
    """The rows of a file of golds: ``gold``, and ``checker`` where it is not ``math``."""
    return _read(file, _gold_fault)


def batches(rows: Iterable[InputRow]) -> Iterator[list[list[InputRow]]]:
    """Whole groups, some hundred rows at a time; a row with a fault is a group of its own."""
    batch: list[list[InputRow]] = []
    for _, neighbours in itertools.groupby(rows, key=_group_key):
        batch.append(list(neighbours))
        if sum(map(len, batch)) >= _ROWS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def request(group: list[InputRow], template: Template) -> ScoreRequest:
    """The rows of a group as the scorer takes them; what they do not say, the template does."""
    first = group[0].fields
    return ScoreRequest(
        id=str(group[0].number),
        question=str(first.get("question", "")),
        gold=reference(first["gold"]),
        checker=checker_of(first),
        responses=tuple(_response(row.fields) for row in group),
        opens_think=bool(first.get("opens_think", template.opens_think)),
        answer_style=first.get("answer_style", template.answer_style),
        columns=first,
        step=first.get("step", 0),
    )


def reference(gold: str | list[str]) -> str:
    """The gold as checkers take it: several reference answers become one text."""
    return gold if isinstance(gold, str) else several_references(gold)


def checker_of(fields: Mapping[str, Any]) -> str:
    """The checker that a row names, or the one for mathematics."""
    return str(fields.get("checker", "math"))


def count_lines(file: Path) -> int:
    """How many rows a file has."""
    with file.open("rb") as handle:
        return sum(1 for _ in handle)


def require_file(file: Path) -> None:
    """Raise UserError where there is no such file."""
    if not file.is_file():
        raise UserError(f"FILE={file}: no such file; give a JSONL file")


def _read(file: Path, fault_of: Callable[[Mapping[str, Any]], str | None]) -> Iterator[InputRow]:
    with file.open("rb") as handle:
        for number, line in enumerate(handle):
            try:
                fields = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                yield InputRow(number, {}, f"not JSON ({error}); mend the line")
                continue
            if isinstance(fields, dict):
                yield InputRow(number, fields, fault_of(fields))
            else:
                yield InputRow(number, {}, "not an object; write {…} on each line")


def _completion_fault(fields: Mapping[str, Any]) -> str | None:
    if not isinstance(_text(fields), str):
        return "completion: missing or not text; name the column completion or text"
    for name in ("num_tokens", "step"):
        if not isinstance(fields.get(name, 0), int):
            return f"{name}={fields[name]!r}: not a whole number; give a count"
    style = fields.get("answer_style", "tags")
    if style not in get_args(AnswerStyle):
        return f"answer_style={style!r}: unknown; use {' or '.join(get_args(AnswerStyle))}"
    return None


def _gold_fault(fields: Mapping[str, Any]) -> str | None:
    gold = fields.get("gold")
    texts = gold if isinstance(gold, list) else [gold]
    if not texts or not all(isinstance(text, str) for text in texts):
        return "gold: missing or not text; give the reference answer as a string, or a list of several"
    if checker_of(fields) not in CHECKERS:
        return f"checker={fields['checker']!r}: unknown; use one of {', '.join(CHECKERS)}"
    return None


def _group_key(row: InputRow) -> tuple[Any, ...]:
    fields = row.fields
    if row.fault is None and "group" in fields:
        return ("group", fields["group"], fields["gold"], checker_of(fields))
    if row.fault is None and "problem_id" in fields:
        return ("problem", fields.get("step"), fields["problem_id"], fields["gold"], checker_of(fields))
    return ("row", row.number)


def _response(fields: Mapping[str, Any]) -> Response:
    return Response(str(_text(fields)), fields.get("num_tokens", 0), fields.get("finish") == "length")


def _text(fields: Mapping[str, Any]) -> object:
    return fields.get("completion", fields.get("text"))

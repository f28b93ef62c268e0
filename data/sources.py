"""From a `SourceSpec` to problems. Rows that cannot be used are reported by number, and never stop a load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from data.errors import DataError, nearest
from data.generated import generated_problems
from data.golds import (
    Gold,
    RowError,
    gsm8k_gold,
    knights_knaves_gold,
    math_gold,
    plain_gold,
    plain_text,
)
from data.problem import Problem
from data.spec import HUB_DEFAULTS, SourceSpec
from data.tables import BadRow, Row, Table, read_table


@dataclass(frozen=True)
class RejectedRow:
    """A row that is no usable problem. ``row`` counts from 0: line 1 of a JSONL file is row 0."""

    row: int
    reason: str


@dataclass(frozen=True)
class LoadedProblems:
    """At least one problem, and what was left out on the way."""

    problems: tuple[Problem, ...]
    rejected: tuple[RejectedRow, ...]
    """Unusable rows among those looked at; reading stops once ``num_problems`` are found."""


@dataclass(frozen=True)
class _Layout:
    """Where a source keeps question and gold: the first of the gold columns that exists is taken."""

    question: str
    golds: tuple[str, ...]
    read_gold: Callable[[Mapping[str, Any], str], Gold]


@dataclass(frozen=True)
class _Columns:
    """The columns of one table that are read; without an id column the row number makes the id."""

    question: str
    gold: str
    id: str | None


_LAYOUTS = {
    "gsm8k": _Layout("question", ("answer",), gsm8k_gold),
    "math": _Layout("problem", ("answer", "solution"), math_gold),
    "knights_knaves": _Layout("quiz", ("solution",), knights_knaves_gold),
    "dataset": _Layout("question", ("answer",), plain_gold),
}


def load_problems(spec: SourceSpec) -> LoadedProblems:
    """All problems of a source, in the source's order; the same spec and data always give the same.

    The filter ``keep`` comes first, then unusable rows are set aside, then ``num_problems`` cuts off.
    Raises DataError when the data cannot be found or read, lacks a named column, or leaves no problem.
    """
    loaded = _generate(spec) if spec.is_generated else _read(spec)
    if spec.checker is None:
        return loaded
    return replace(loaded, problems=tuple(replace(each, checker=spec.checker) for each in loaded.problems))


def _generate(spec: SourceSpec) -> LoadedProblems:
    num_problems = spec.num_problems or 0
    return LoadedProblems(generated_problems(spec.source, spec.options, spec.split, spec.seed, num_problems), ())


def _read(spec: SourceSpec) -> LoadedProblems:
    table = _table(spec)
    columns = _columns(spec, table)
    problems: list[Problem] = []
    rejected: list[RejectedRow] = []
    row_of_id: dict[str, int] = {}
    for number, row in _kept(spec, table):
        try:
            problem = _problem(spec, columns, number, row)
            _refuse_known_id(problem, row_of_id)
        except RowError as reason:
            rejected.append(RejectedRow(number, str(reason)))
            continue
        problems.append(problem)
        if len(problems) == spec.num_problems:
            break
    if not problems:
        raise _nothing_left(spec, table, rejected)
    return LoadedProblems(tuple(problems), tuple(rejected))


def _table(spec: SourceSpec) -> Table:
    default = HUB_DEFAULTS.get(spec.source)
    if default is None or spec.path not in (None, default.path):
        return read_table(str(spec.path), spec.subset, spec.split)
    subset = spec.subset or default.subset
    if spec.source == "knights_knaves" and subset is not None:
        # On the hub, this one's configurations are the splits, and its splits are the numbers of people.
        return read_table(default.path, spec.split, subset)
    return read_table(default.path, subset, spec.split)


def _columns(spec: SourceSpec, table: Table) -> _Columns:
    """The recipe's names over the source's own; DataError names the one that the data does not have."""
    layout = _LAYOUTS[spec.source]
    own_gold = next((name for name in layout.golds if name in table.columns), layout.golds[0])
    chosen = {"question": layout.question, "gold": own_gold} | spec.columns
    for field, column in chosen.items():
        _require(table, column, f"columns.{field}")
    return _Columns(chosen["question"], chosen["gold"], chosen.get("id"))


def _require(table: Table, column: str, where: str) -> None:
    if table.columns and column not in table.columns:
        raise DataError(
            f"{where}={column!r}: the data has no such column; name one that it has; {nearest(column, table.columns)}"
        )


def _kept(spec: SourceSpec, table: Table) -> Iterator[tuple[int, Row]]:
    """Rows with their numbers that pass the filter; unreadable rows pass, so that they are reported."""
    for column in spec.keep:
        _require(table, column, f"keep.{column}")
    wanted = {column: {_comparable(value, column) for value in spec.keep[column]} for column in spec.keep}
    for number, row in enumerate(table.rows):
        if isinstance(row, BadRow) or all(
            _comparable(row.get(column), column) in values for column, values in wanted.items()
        ):
            yield number, row


def _comparable(value: object, column: str) -> str:
    """3, 3.0, "3" and, in the column level, "Level 3" become the same text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold().removeprefix(f"{column.casefold()} ")


def _problem(spec: SourceSpec, columns: _Columns, number: int, row: Row) -> Problem:
    if isinstance(row, BadRow):
        raise RowError(row.reason)
    question = row.get(columns.question)
    if not isinstance(question, str) or not question.strip():
        raise RowError(f"column {columns.question!r} has no question in it")
    gold = _LAYOUTS[spec.source].read_gold(row, columns.gold)
    own_id = plain_text(row.get(columns.id), columns.id) if columns.id else None
    return Problem(
        id=own_id or f"{spec.source}/{spec.split}/{number}",
        question=question.strip(),
        gold=gold.text,
        checker=gold.checker,
        source=spec.source,
        row=number,
        columns=row,
    )


def _refuse_known_id(problem: Problem, row_of_id: dict[str, int]) -> None:
    first = row_of_id.setdefault(problem.id, problem.row)
    if first != problem.row:
        raise RowError(f"id {problem.id!r} is that of row {first} already")


def _nothing_left(spec: SourceSpec, table: Table, rejected: list[RejectedRow]) -> DataError:
    path = spec.path or HUB_DEFAULTS[spec.source].path
    if rejected:
        first = "; ".join(f"row {each.row}: {each.reason}" for each in rejected[:3])
        return DataError(f"path={path!r}: none of {len(rejected)} rows can be used; mend the data. {first}")
    if spec.keep:
        return DataError(f"keep={spec.keep!r}: no row passes; list values that occur. {_seen(spec, table)}")
    return DataError(f"path={path!r}: holds no rows; give a file with problems in it")


def _seen(spec: SourceSpec, table: Table) -> str:
    """The first few different values in each of the filter's columns."""
    rows = [row for row in islice(table.rows, 1000) if not isinstance(row, BadRow)]
    values = {column: list(dict.fromkeys(str(row.get(column)) for row in rows))[:8] for column in spec.keep}
    return "; ".join(f"{column} has {', '.join(found)}" for column, found in values.items())

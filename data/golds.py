r"""Gold answers out of the columns of a row: after ``####``, inside ``\boxed{}``, from lists of answers or roles."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_INTEGER = re.compile(r"-?\d+")
_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3})")


class RowError(ValueError):
    """Why a row cannot become a problem; its message is the reason that the user reads."""


class Gold(NamedTuple):
    """A gold answer and the checker that understands it."""

    text: str
    checker: str


def plain_text(value: object, column: str) -> str:
    """A cell as text: texts stripped, numbers written out, 142.0 as 142. RowError for all else."""
    if value is None:
        raise RowError(f"column {column!r} has no value")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"column {column!r} holds a {type(value).__name__} and not a text or a number")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RowError(f"column {column!r} holds {value}, which is no answer")
        value = int(value) if value.is_integer() else value
    text = str(value).strip()
    if not text:
        raise RowError(f"column {column!r} is empty")
    return text


def several_references(texts: Sequence[str]) -> str:
    """Reference answers any of which will do, as one gold: ``{"any_of": ["1/2", "0.5"]}``; a single one as it is."""
    return texts[0] if len(texts) == 1 else json.dumps({"any_of": list(texts)}, ensure_ascii=False)


def plain_gold(row: Mapping[str, Any], column: str) -> Gold:
    """The cell as it stands; a list holds several reference answers."""
    return Gold(_references(row.get(column), column, plain_text), "math")


def gsm8k_gold(row: Mapping[str, Any], column: str) -> Gold:
    """What stands after the last ``####``, without thousands commas: ``#### 1,250`` gives 1250."""
    text = plain_text(row.get(column), column)
    _, mark, last = text.rpartition("####")
    gold = _THOUSANDS_COMMA.sub("", last.strip())
    if not mark or not gold:
        raise RowError(f"column {column!r} has nothing after '####'")
    return Gold(gold, "integer" if _INTEGER.fullmatch(gold) else "math")


def math_gold(row: Mapping[str, Any], column: str) -> Gold:
    r"""The answer; from a ``solution``, or from any text with a box, the content of the last ``\boxed{}``.

    A list holds several reference answers.
    """
    return Gold(_references(row.get(column), column, _maths_answer), "math")


def _maths_answer(cell: object, column: str) -> str:
    text = plain_text(cell, column)
    if column != "solution" and r"\boxed" not in text:
        return text
    boxed = last_boxed(text)
    if not boxed:
        raise RowError(rf"column {column!r} has no closed \boxed{{}} with an answer")
    return boxed


def _references(cell: object, column: str, read: Callable[[object, str], str]) -> str:
    """One answer, or each of a list's. RowError for an empty list, or for an entry that is no answer."""
    if not isinstance(cell, list):
        return read(cell, column)
    if not cell:
        raise RowError(f"column {column!r} holds an empty list")
    return several_references([read(entry, column) for entry in cell])


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{}``, or None where there is none or its brace is never closed.

    ``\{`` and ``\}`` do not count as braces: ``\boxed{\{1, \frac{1}{2}\}}`` gives ``\{1, \frac{1}{2}\}``.
    """
    _, opened, rest = text.rpartition(r"\boxed{")
    if not opened:
        return None
    depth = 1
    for brace, end in _braces(rest):
        depth += 1 if brace == "{" else -1
        if depth == 0:
            return rest[:end].strip()
    return None


def _braces(text: str) -> Iterator[tuple[str, int]]:
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if len(match[0]) == 1:
            yield match[0], match.start()


def knights_knaves_gold(row: Mapping[str, Any], column: str) -> Gold:
    """``{"Amelia": true, "Noah": false}`` from ``names`` and a list of truth values; true is a knight."""
    names = _list_of(str, row.get("names"), "names")
    roles = _list_of(bool, row.get(column), column)
    if len(names) != len(roles) or len(set(names)) != len(names):
        raise RowError(f"columns 'names' and {column!r} do not match: {names}, {roles}")
    return Gold(json.dumps(dict(zip(names, roles, strict=True)), ensure_ascii=False), "knights_knaves")


def _list_of(kind: type, values: object, column: str) -> list[Any]:
    if isinstance(values, list) and values and all(isinstance(value, kind) for value in values):
        return values
    raise RowError(f"column {column!r} is not a list of {kind.__name__}, or an empty one")

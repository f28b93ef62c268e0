"""Parts of the real line, however they are written: inequalities, intervals, unions, set builders, ``\\mathbb{R}``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from rewards.checkers.forms import (
    FLIPPED,
    Collection,
    bracketed,
    is_variable,
    read_collection,
    relation_parts,
    split_items,
    split_top,
)
from rewards.checkers.number_text import read_number

_REAL_VARIABLE = re.compile(r"[a-z](?: ?\\in ?\\mathbb ?\{?R\}?)?")
_REALS = "\\mathbb{R}"
_WHOLE_LINE = Collection("()", ("-\\infty", "\\infty"))


@dataclass(frozen=True)
class Ranges:
    """Intervals, and the variable that lies in them (``""`` where none is named)."""

    name: str
    intervals: tuple[Collection, ...]
    is_relation: bool = False
    """Written with < or \\le, not with brackets."""


def read_ranges(text: str) -> Ranges | None:
    """The part of the real line that the text describes, or None when it describes anything else."""
    if (condition := _condition_of_set(text)) is not None:
        return condition
    items = split_items(text)
    found = [_read_relation(item) for item in items]
    known = [one for one in found if one is not None]
    if len(known) == len(found):
        return _combine(known, is_union="\\lor" in text)
    if len(items) > 1 and "\\lor" in text:
        text = " \\cup ".join(items)
    parts, relations = relation_parts(text)
    if relations == ["\\in"] and is_variable(parts[0]):
        inner = read_ranges(parts[1])
        return Ranges(parts[0], inner.intervals) if inner is not None and not inner.name else None
    return _read_union(text)


def _condition_of_set(text: str) -> Ranges | None:
    """``\\{x \\mid x > 2\\}`` is ``x > 2``."""
    found = bracketed(text)
    if found is None or found[0] != "{}":
        return None
    for separator in ("\\mid", "|", ":"):
        pieces = split_top(found[1], (separator,))
        if len(pieces) == 2 and _REAL_VARIABLE.fullmatch(pieces[0]):
            return read_ranges(pieces[1])
    return None


def _read_union(text: str) -> Ranges | None:
    whole, *removed = split_top(text, ("\\setminus",))
    if whole.replace(" ", "") == _REALS and len(removed) <= 1:
        parts = _without_points(removed[0]) if removed else [_WHOLE_LINE]
        return Ranges("", tuple(parts)) if parts else None
    pieces = [read_collection(piece) for piece in split_top(text, ("\\cup",))]
    intervals = tuple(piece for piece in pieces if piece is not None and piece.is_interval)
    return Ranges("", intervals) if len(intervals) == len(pieces) else None


def _without_points(text: str) -> list[Collection]:
    """The intervals between the points of a set; none when a point is no number."""
    points = read_collection(text)
    if points is None or points.brackets != "{}":
        return []
    value_of = {point: value for point in points.items if (value := number_of(point)) is not None}
    if len(value_of) < len({*points.items}):
        return []
    ends = ["-\\infty", *sorted(value_of, key=lambda point: value_of[point]), "\\infty"]
    return [Collection("()", pair) for pair in pairwise(ends)]


def _combine(found: Sequence[Ranges], is_union: bool) -> Ranges | None:
    """Several relations on one variable: without "or", two half-lines that overlap are what lies in both."""
    if len({one.name.replace(" ", "") for one in found}) != 1:
        return None
    intervals = tuple(interval for one in found for interval in one.intervals)
    if not is_union and len(intervals) == 2 and (between := _overlap(*intervals)) is not None:
        intervals = (between,)
    return Ranges(found[0].name, intervals, is_relation=True)


def _overlap(one: Collection, other: Collection) -> Collection | None:
    """``x > 1, x < 3`` is ``1 < x < 3``."""
    if one.items[0] == "-\\infty":
        one, other = other, one
    if one.items[1] != "\\infty" or other.items[0] != "-\\infty":
        return None
    low, high = number_of(one.items[0]), number_of(other.items[1])
    if low is None or high is None or low >= high:
        return None
    return Collection(one.brackets[0] + other.brackets[1], (one.items[0], other.items[1]))


def _read_relation(text: str) -> Ranges | None:
    """``a < x \\le b``, ``x > a`` or ``a \\ge x`` as an interval of a named variable."""
    parts, relations = relation_parts(text)
    if relations == ["\\ne"] and is_variable(parts[0]) and (around := _without_points(f"\\{{{parts[1]}\\}}")):
        return Ranges(parts[0], tuple(around), is_relation=True)
    if not relations or any(relation not in FLIPPED for relation in relations) or not all(parts):
        return None
    if len(relations) == 1:
        return _half_line(parts, relations[0])
    if len(relations) == 2 and is_variable(parts[1]) and not any(map(is_variable, (parts[0], parts[2]))):
        return _between(parts, relations)
    return None


def _half_line(parts: list[str], relation: str) -> Ranges | None:
    left, right = parts
    if not is_variable(left):
        left, right, relation = right, left, FLIPPED[relation]
    if not is_variable(left) or is_variable(right):
        return None
    if relation in (">", "\\ge"):
        found = Collection("()" if relation == ">" else "[)", (right, "\\infty"))
    else:
        found = Collection("()" if relation == "<" else "(]", ("-\\infty", right))
    return Ranges(left, (found,), is_relation=True)


def _between(parts: list[str], relations: list[str]) -> Ranges | None:
    low, name, high = parts
    first, second = relations
    if {first, second} <= {">", "\\ge"}:
        low, high, first, second = high, low, FLIPPED[second], FLIPPED[first]
    if not {first, second} <= {"<", "\\le"}:
        return None
    brackets = ("(" if first == "<" else "[") + (")" if second == "<" else "]")
    return Ranges(name, (Collection(brackets, (low, high)),), is_relation=True)


def number_of(text: str) -> Fraction | None:
    """The value of a constant, exact where it is written so; None for everything else."""
    if (written := read_number(text)) is not None:
        return written.value
    from rewards.checkers import symbolic

    value = symbolic.real_value(text)
    return None if value is None else Fraction(str(value))

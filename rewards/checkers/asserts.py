"""The tests of a code gold: the expression that the sandbox evaluates, and what its value has to be.

A test is one ``assert``. Only its EXPR enters the sandbox; the LITERAL, which is what is expected, stays outside::

    assert EXPR == LITERAL      assert EXPR                 assert math.isclose(EXPR, NUMBER, rel_tol=…, abs_tol=…)
    assert LITERAL == EXPR      assert not EXPR             assert abs(EXPR - NUMBER) < NUMBER      (or <=)
    assert EXPR is LITERAL      where LITERAL is True, False or None

A LITERAL is plain data, arithmetic on numbers, or ``set``, ``frozenset``, ``tuple``, ``list``, ``dict`` and ``float``
called with literals. A message after a comma is ignored. Equality is Python's: ``1 == 1.0 == True``.

What can only be true or false must be said by the answer itself: `assert f(1) != 2` or `assert all(f(1))` would
have the sandbox compare, where the answer can redefine what comparing means. A comparison that hides in a function
of the answer's, or behind a name that the answer binds, cannot be told from one of its results.
"""

from __future__ import annotations

import ast
import builtins
import math
import operator
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from rewards.errors import UnusableGoldError
from rewards.sandbox.values import GarbageError, NotPlainError, decode, encode

_SHAPES = "it is none of the shapes that can be compared from outside; write it as: assert EXPR == LITERAL"
_CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (set, frozenset, tuple, list, dict, float)
}
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


class _NoLiteralError(ValueError):
    """An expression that is not a LITERAL, so that its value is not known outside the sandbox."""


@dataclass(frozen=True)
class AnswerTest:
    """`expression` is evaluated in the sandbox; `holds` says, outside it, whether its value is right."""

    expression: str
    holds: Callable[[Any], bool]
    example: Any
    """A value for which `holds` is true, unless no answer could ever pass."""
    is_yes_or_no: bool
    """Whether the value can only be true or false, so that the comparison may have been made inside the sandbox."""


def parse_test(text: str, names_of_setup: Collection[str]) -> AnswerTest:
    """Raises UnusableGoldError for a test that cannot be compared from outside, or that no answer could pass."""
    try:
        body = ast.parse(text.strip()).body
        if len(body) != 1 or not isinstance(body[0], ast.Assert):
            raise UnusableGoldError("it is not one assert")
        test = _read(body[0].test)
        if test.is_yes_or_no and not _is_said_by_the_answer(test.expression, names_of_setup):
            raise UnusableGoldError("whether it is true would be decided inside the sandbox, where it can be forged")
        if not test.holds(decode(encode(test.example))):
            raise UnusableGoldError(f"{test.example!r} does not pass its own test")
    except UnusableGoldError as error:
        raise UnusableGoldError(f"{text!r}: {error}") from None
    except (_NoLiteralError, NotPlainError, GarbageError):
        raise UnusableGoldError(f"{text!r}: {_SHAPES}") from None
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise UnusableGoldError(f"{text!r}: {type(error).__name__}: {error}") from None
    return test


def _read(node: ast.expr) -> AnswerTest:
    match node:
        case ast.UnaryOp(ast.Not(), asked):
            return AnswerTest(ast.unparse(asked), operator.not_, False, is_yes_or_no=True)
        case ast.Compare(ast.Call(ast.Name("abs"), [ast.BinOp(left, ast.Sub(), right)], []), [order], [tolerance]):
            return _near(left, right, order, tolerance)
        case ast.Compare(left, [ast.Eq()], [right]):
            return _equal(left, right)
        case ast.Compare(asked, [ast.Is()], [ast.Constant(True | False | None as value)]):
            return AnswerTest(ast.unparse(asked), lambda found: found is value, value, is_yes_or_no=value is not None)
        case ast.Call(ast.Attribute(ast.Name("math"), "isclose"), [left, right], tolerances):
            return _close(left, right, tolerances)
        case _:
            return AnswerTest(ast.unparse(node), bool, True, is_yes_or_no=True)


def _equal(left: ast.expr, right: ast.expr) -> AnswerTest:
    asked, expected = _asked_and_expected(left, right)
    return AnswerTest(asked, lambda found: bool(found == expected), expected, is_yes_or_no=isinstance(expected, bool))


def _near(left: ast.expr, right: ast.expr, order: ast.cmpop, tolerance: ast.expr) -> AnswerTest:
    """``abs(EXPR - NUMBER) < NUMBER``; the difference is taken on this side."""
    asked, expected = _asked_and_expected(left, right)
    bound = _number(_literal(tolerance))
    within = {ast.Lt: operator.lt, ast.LtE: operator.le}.get(type(order))
    if within is None:
        raise _NoLiteralError
    return _numeric(asked, _number(expected), lambda found: bool(within(abs(found - expected), bound)))


def _close(left: ast.expr, right: ast.expr, keywords: list[ast.keyword]) -> AnswerTest:
    asked, expected = _asked_and_expected(left, right)
    tolerances = {keyword.arg or "": _number(_literal(keyword.value)) for keyword in keywords}
    if not tolerances.keys() <= {"rel_tol", "abs_tol"}:
        raise _NoLiteralError
    return _numeric(asked, _number(expected), lambda found: math.isclose(found, expected, **tolerances))


def _numeric(asked: str, expected: float, holds: Callable[[Any], bool]) -> AnswerTest:
    def is_number_and_holds(found: Any) -> bool:
        try:
            return isinstance(found, (int, float)) and holds(found)
        except OverflowError:
            return False

    return AnswerTest(asked, is_number_and_holds, expected, is_yes_or_no=False)


def _asked_and_expected(left: ast.expr, right: ast.expr) -> tuple[str, Any]:
    """The source of the side that is no literal, and the value of the one that is."""
    for asked, expected in ((left, right), (right, left)):
        try:
            value = _literal(expected)
        except _NoLiteralError:
            continue
        if _is_literal(asked):
            raise UnusableGoldError("it asks the answer for nothing")
        return ast.unparse(asked), value
    raise _NoLiteralError


def _is_literal(node: ast.expr) -> bool:
    try:
        _literal(node)
    except _NoLiteralError:
        return False
    return True


def _literal(node: ast.expr) -> Any:
    """The value of a literal. Raises _NoLiteralError."""
    match node:
        case ast.Constant(value) if value is None or type(value) in (bool, int, float, str, bytes):
            return value
        case ast.UnaryOp(ast.USub(), operand):
            return -_number(_literal(operand))
        case ast.UnaryOp(ast.UAdd(), operand):
            return +_number(_literal(operand))
        case ast.BinOp(left, sign, right) if type(sign) in _ARITHMETIC:
            return _ARITHMETIC[type(sign)](_number(_literal(left)), _number(_literal(right)))
        case ast.List(items):
            return [_literal(item) for item in items]
        case ast.Tuple(items):
            return tuple(_literal(item) for item in items)
        case ast.Set(items):
            return {_literal(item) for item in items}
        case ast.Dict(keys, values) if None not in keys:
            return {_literal(key): _literal(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.Call(ast.Name(name), arguments, []) if name in _CONSTRUCTORS:
            return _constructed(name, [_literal(argument) for argument in arguments])
    raise _NoLiteralError


def _constructed(name: str, arguments: list[Any]) -> Any:
    try:
        return _CONSTRUCTORS[name](*arguments)
    except (TypeError, ValueError):
        raise _NoLiteralError from None


def _number(value: Any) -> Any:
    if type(value) not in (int, float):
        raise _NoLiteralError
    return value


def _is_said_by_the_answer(expression: str, names_of_setup: Collection[str]) -> bool:
    """Whether the expression is a name of the answer's own, or a call, attribute or item of one, hence no comparison.

    Names that are builtins or that the set-up binds are not the answer's own.
    """
    node: ast.expr = ast.parse(expression, mode="eval").body
    while isinstance(node, (ast.Call, ast.Attribute, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name) and not hasattr(builtins, node.id) and node.id not in names_of_setup

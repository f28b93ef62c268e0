"""Sums, differences and products of whole numbers."""

from __future__ import annotations

import math
import random
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.errors import DataError
from data.splits import Belongs, Draft

CHECKER = "integer"
Term = tuple[int, tuple[int, ...]]
"""A sign (1 or -1) and the factors of one product."""


class ArithmeticOptions(BaseModel):
    """What the questions look like. Operands are drawn evenly from min_value to max_value, both included."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    min_value: int = 1
    max_value: int = 99
    operators: list[Literal["+", "-", "*"]] = Field(default=["+"], min_length=1)
    """Each operator is drawn evenly from this list; ``*`` binds before ``+`` and ``-``, as usual."""
    num_operands: int = Field(default=2, ge=2, le=8)
    non_negative: bool = False
    """True leaves out questions whose result is below 0."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min_value > self.max_value:
            raise DataError(
                f"options.min_value={self.min_value}: is above options.max_value={self.max_value}; swap them"
            )
        if self.non_negative and self.max_value < 0 and set(self.operators) == {"+"}:
            raise DataError("options.non_negative=True: no sum of numbers below 0 passes; raise options.max_value")
        return self


def draw_arithmetic(options: ArithmeticOptions, rng: random.Random, belongs: Belongs) -> Draft | None:
    """A question such as ``What is 23 + 48?`` with gold ``71``."""
    operands = [rng.randint(options.min_value, options.max_value) for _ in range(options.num_operands)]
    operators = [rng.choice(options.operators) for _ in operands[1:]]
    terms = _terms(operands, operators)
    result = sum(sign * math.prod(factors) for sign, factors in terms)
    key = _canonical(terms)
    if (options.non_negative and result < 0) or not belongs(key):
        return None
    return Draft(f"What is {_written(operands, operators)}?", str(result), key)


def _terms(operands: list[int], operators: list[Literal["+", "-", "*"]]) -> list[Term]:
    terms: list[Term] = [(1, (operands[0],))]
    for operator, operand in zip(operators, operands[1:], strict=True):
        if operator == "*":
            sign, factors = terms[-1]
            terms[-1] = (sign, (*factors, operand))
        else:
            terms.append((1 if operator == "+" else -1, (operand,)))
    return terms


def _canonical(terms: list[Term]) -> str:
    """A text that does not depend on the order of factors and terms: the same for ``23 + 48`` and ``48 + 23``."""
    return repr(sorted((sign, tuple(sorted(factors))) for sign, factors in terms))


def _written(operands: list[int], operators: list[Literal["+", "-", "*"]]) -> str:
    shown = [str(operand) if operand >= 0 else f"({operand})" for operand in operands]
    pairs = (f" {operator} {operand}" for operator, operand in zip(operators, shown[1:], strict=True))
    return shown[0] + "".join(pairs)

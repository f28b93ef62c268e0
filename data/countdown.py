"""Countdown: reach a target number with an expression that uses every given number once.

The game as a training task was made known by TinyZero (https://github.com/Jiayi-Pan/TinyZero).
"""

from __future__ import annotations

import json
import random
from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from data.errors import DataError
from data.splits import Belongs, Draft

CHECKER = "countdown"
Count = Annotated[int, Field(ge=2, le=6)]
_MAX_EXPRESSIONS = 200


class CountdownOptions(BaseModel):
    """How hard the game is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    num_numbers: list[Count] = Field(default=[3, 4], min_length=2, max_length=2)
    """How many numbers are given: ``[lowest, highest]``, both included, or one count for always so many."""
    max_number: int = Field(default=99, ge=2)
    """Numbers are drawn evenly from 1 to this."""
    max_target: int = Field(default=100, ge=1)
    """Targets lie between 1 and this."""

    @field_validator("num_numbers", mode="before")
    @classmethod
    def _one_count_is_a_range(cls, counts: object) -> object:
        return [counts, counts] if isinstance(counts, int) else counts

    @field_validator("num_numbers")
    @classmethod
    def _ordered(cls, counts: list[int]) -> list[int]:
        if counts[0] > counts[1]:
            raise DataError(f"options.num_numbers={counts}: is not a range; give [lowest, highest]")
        return counts


def draw_countdown(options: CountdownOptions, rng: random.Random, belongs: Belongs) -> Draft | None:
    """A game whose target is the value of some expression over all its numbers.

    None where the numbers belong to another split, or where no expression was found with a target in range.

    The gold is ``{"numbers": [3, 7, 12], "target": 33}`` as JSON. The split depends on the sorted numbers alone, so
    that the same numbers with another target, which make another problem, are in the same one.
    """
    lowest, highest = options.num_numbers
    numbers = [rng.randint(1, options.max_number) for _ in range(rng.randint(lowest, highest))]
    given = repr(sorted(numbers))
    target = _reachable_target(numbers, options.max_target, rng) if belongs(given) else None
    if target is None:
        return None
    columns = {"numbers": numbers, "target": target}
    return Draft(_question(numbers, target), json.dumps(columns), f"{given} {target}", columns)


def _reachable_target(numbers: list[int], max_target: int, rng: random.Random) -> int | None:
    for _ in range(_MAX_EXPRESSIONS):
        value = _random_expression_value(numbers, rng)
        if value is not None and value.denominator == 1 and 1 <= value <= max_target:
            return int(value)
    return None


def _random_expression_value(numbers: list[int], rng: random.Random) -> Fraction | None:
    """Join two random values by a random operation until one is left; None where that divides by 0."""
    values = [Fraction(number) for number in numbers]
    while len(values) > 1:
        left = values.pop(rng.randrange(len(values)))
        right = values.pop(rng.randrange(len(values)))
        operator = rng.choice("+-*/")
        if operator == "/" and right == 0:
            return None
        values.append(_apply(operator, left, right))
    return values[0]


def _apply(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else left / right


def _question(numbers: list[int], target: int) -> str:
    listed = ", ".join(str(number) for number in numbers)
    return (
        f"You have the numbers {listed}. Write an expression that equals {target}. Use every number exactly "
        "once, and nothing else but +, -, *, / and parentheses. Give the expression as your answer."
    )

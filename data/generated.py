"""The generated sources by name: their options, and the problems that come out."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError

from data import arithmetic, countdown
from data.errors import DataError, explain
from data.problem import Problem
from data.splits import Belongs, Draft, draw_problems


@dataclass(frozen=True)
class Generator:
    """One kind of generated problem: its options, how a question is drawn, and what judges the answers."""

    options: type[BaseModel]
    draw: Callable[[Any, random.Random, Belongs], Draft | None]
    checker: str


GENERATORS = {
    "arithmetic": Generator(arithmetic.ArithmeticOptions, arithmetic.draw_arithmetic, arithmetic.CHECKER),
    "countdown": Generator(countdown.CountdownOptions, countdown.draw_countdown, countdown.CHECKER),
}


def checked_options(source: str, options: Mapping[str, Any]) -> BaseModel:
    """The options of a generated source with its defaults; DataError names every key that is wrong."""
    model = GENERATORS[source].options
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise DataError(explain("options", error, model.model_fields)) from error


def generated_problems(
    source: str, options: Mapping[str, Any], split: str, seed: int, num_problems: int
) -> tuple[Problem, ...]:
    """The first ``num_problems`` problems of a split, all different; number i is the same however many are asked for.

    Raises DataError for options that are wrong or that leave fewer questions for the split.
    """
    generator = GENERATORS[source]
    draw = partial(generator.draw, checked_options(source, options))
    return tuple(
        Problem(
            id=f"{source}/{split}/{index}",
            question=draft.question,
            gold=draft.gold,
            checker=generator.checker,
            source=source,
            row=index,
            columns=draft.columns,
        )
        for index, draft in enumerate(draw_problems(draw, source, seed, split, num_problems))
    )

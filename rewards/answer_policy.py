"""Where graders disagree about what counts as the same answer: one choice each, all in one place.

Every field is an option of a recipe (``scoring.policy.percent=either``); the defaults are the project's choices.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SeveralBoxes = Literal["list", "last", "refuse"]


class AnswerPolicy(BaseModel):
    """How the math checker, and the search for boxes, decide what public suites do not agree on."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    several_boxes: SeveralBoxes = "list"
    """list: boxes with nothing but commas, "and" or "or" between them are one list; else the last one counts.
    last: always the last one. refuse: more than one different box is no answer."""
    percent: Literal["value", "either"] = "value"
    """value: ``60\\%`` is 0.6 and nothing else. either: the sign may be missing on one side, so it is 60 as well."""
    rounding_digits: int | None = Field(default=6, ge=2)
    """A decimal of at least so many significant digits stands for the fraction or root that no decimal can write,
    when it is that number rounded or cut off. None: never."""
    relative_tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Two numbers this close to each other, relative to the gold, are equal."""
    list_order: Literal["any", "same"] = "any"
    """Order of a bare list such as ``2, 5``. Tuples always keep theirs, sets never do."""
    brackets: Literal["same", "any"] = "same"
    """same: ``\\{1,2\\}`` is not ``(1,2)``. any: a set may be written as a tuple and a tuple as a set or bare list."""
    intervals: Literal["any", "same"] = "any"
    """any: ``1 \\le x \\le 2``, ``x \\in [1,2]`` and ``[1,2]`` are one. same: each only in its own form."""
    unreduced: Literal["accept", "refuse"] = "accept"
    """Whether ``2/4`` is accepted for ``1/2``."""
    unevaluated: Literal["accept", "refuse"] = "accept"
    """Whether arithmetic that is still to be done (``5-3``, ``5!``) is accepted for the plain number it gives."""
    units: Literal["optional", "required", "ignored"] = "optional"
    """optional: one side may lack its unit, two different ones are wrong. required: both have the same or none.
    ignored: not even looked at."""
    equations: Literal["value", "same"] = "value"
    """value: ``x = 2`` and ``2`` are one. same: an equation is met by an equation only."""
    case: Literal["ignore", "exact"] = "ignore"
    """Upper and lower case in words of two letters and more; a single letter always keeps its case."""
    decimal_comma: bool = False
    """Whether ``1000,99`` is 1000.99."""


DEFAULT_POLICY = AnswerPolicy()

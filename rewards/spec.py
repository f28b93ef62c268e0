"""One reward of a recipe: its name, weight and options. Imports neither sympy nor users' modules."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rewards.errors import did_you_mean
from rewards.parts.options import OPTIONS_OF_REWARD, Options

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*|\.[^\W\d]\w*)")


class RewardSpec(BaseModel):
    """A named reward with its weight in the sum.

    `name` is one of `OPTIONS_OF_REWARD`, or a user's own function as ``package.module:function`` or
    ``package.module.function``. The options of the named ones are checked here; those of a user's function are handed
    to it as keyword arguments.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    weight: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        for key in value if isinstance(value, Mapping) else ():
            if key not in cls.model_fields:
                raise ValueError(f"{key}={value[key]!r}: no such key; {did_you_mean(str(key), cls.model_fields)}")
        return value

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str) -> str:
        if name not in OPTIONS_OF_REWARD and not _DOTTED.fullmatch(name):
            advice = did_you_mean(name, OPTIONS_OF_REWARD)
            raise ValueError(
                f"name={name!r}: no such reward; {advice} (your own function is 'package.module:function')"
            )
        return name

    @field_validator("weight")
    @classmethod
    def _finite_weight(cls, weight: float) -> float:
        if not math.isfinite(weight):
            raise ValueError(f"weight={weight}: not a finite number; give a number such as 1.0")
        return weight

    @model_validator(mode="after")
    def _known_options(self) -> Self:
        if not self.is_user_function:
            self.parsed_options()
        return self

    @property
    def is_user_function(self) -> bool:
        return self.name not in OPTIONS_OF_REWARD

    def parsed_options(self) -> Options:
        """The options as the named reward's own type. Raises ValueError that lists every fault."""
        known = OPTIONS_OF_REWARD[self.name]
        try:
            return known.model_validate(self.options)
        except ValidationError as error:
            faults = [_option_fault(fault, known) for fault in error.errors()]
            raise ValueError(f"name={self.name!r}: " + "; ".join(faults)) from None


def _option_fault(fault: Mapping[str, Any], known: type[Options]) -> str:
    """An error of pydantic's in the form ``options.where=value: what is wrong; what to do``."""
    where = ".".join(["options", *map(str, fault["loc"])])
    if fault["type"] == "extra_forbidden":
        advice = did_you_mean(str(fault["loc"][-1]), known.model_fields)
        return f"{where}={fault['input']!r}: no such option; {advice}"
    if fault["type"] == "missing":
        return f"{where}: not given, and it has no default; set it"
    return f"{where}={fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}"

"""The options of each reward, as a recipe writes them. Misspelt ones are refused."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rewards.errors import did_you_mean
from rewards.scripts import SCRIPTS_OF_LANGUAGE


class Options(BaseModel):
    """What all options share: frozen, finite, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FormatOptions(Options):
    partial: bool = False
    """Credit for single tags instead of all or nothing."""


class CorrectnessOptions(Options):
    correct: float = 1.0
    wrong: float = 0.0
    """Paid for everything that is not correct, no answer and time-outs included."""


class LengthOptions(Options):
    warmup_steps: int = Field(default=0, ge=0)
    """The reward is 0 before this step."""


class OverlongOptions(Options):
    max_tokens: int = Field(gt=0)
    cache_tokens: int = Field(gt=0)
    """Width of the ramp that ends at `max_tokens`, in tokens."""

    @model_validator(mode="after")
    def _ramp_fits(self) -> Self:
        if self.cache_tokens > self.max_tokens:
            raise ValueError(
                f"cache_tokens={self.cache_tokens}: longer than max_tokens={self.max_tokens}; "
                "the ramp lies inside the limit, so give a smaller cache_tokens"
            )
        return self


class LanguageOptions(Options):
    target: str = "en"
    """ISO 639-1 code of the language that the completion should be written in."""

    @field_validator("target")
    @classmethod
    def _known(cls, target: str) -> str:
        if target not in SCRIPTS_OF_LANGUAGE:
            raise ValueError(f"no script is listed for it; {did_you_mean(target, SCRIPTS_OF_LANGUAGE)}")
        return target


OPTIONS_OF_REWARD: dict[str, type[Options]] = {
    "format": FormatOptions,
    "correctness": CorrectnessOptions,
    "length": LengthOptions,
    "overlong": OverlongOptions,
    "language": LanguageOptions,
}

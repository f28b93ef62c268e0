"""The options of each reward, as a recipe writes them. Misspelt ones are refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rewards.errors import did_you_mean
from rewards.parts.scripts import SCRIPTS_OF_LANGUAGE


class Options(BaseModel):
    """What all options share: frozen, finite, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FormatOptions(Options):
    partial: bool = False
    """Credit for single tags instead of all or nothing."""


class RepetitionOptions(Options):
    ngram_size: int = Field(default=3, ge=1, le=100)
    """How many words in a row make one n-gram."""
    max_penalty: float = Field(default=-1.0, le=0)
    """What a text of nothing but repetitions comes close to."""


class LanguageOptions(Options):
    target: str = "en"
    """ISO 639-1 code of the language that the completion should be written in."""
    identifier: Literal["py3langid"] | None = None
    """A package that also tells apart languages of one script; None goes by script alone and needs no package."""

    @field_validator("target")
    @classmethod
    def _known(cls, target: str) -> str:
        if target not in SCRIPTS_OF_LANGUAGE:
            raise ValueError(f"no script is listed for it; {did_you_mean(target, SCRIPTS_OF_LANGUAGE)}")
        return target


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


class CorrectnessOptions(Options):
    correct: float = 1.0
    wrong: float = 0.0
    """Paid for everything that is not correct, no answer and time-outs included."""


class LengthOptions(Options):
    warmup_steps: int = Field(default=0, ge=0)
    """The reward is 0 before this step."""


class CosineOptions(Options):
    max_tokens: int = Field(gt=0)
    """Length at which the cosine ends: the limit on generation."""
    r_correct_0: float = 2.0
    """Paid for a right answer of no tokens."""
    r_correct_max: float = 1.0
    """Paid for a right answer of nearly `max_tokens`."""
    r_wrong_0: float = -10.0
    r_wrong_max: float = 0.0
    exceed: float | None = -10.0
    """Paid from `max_tokens` on, right or wrong. None: the value at `max_tokens` is kept for all that is longer."""


class L1Options(Options):
    """The target is the same for all problems, or stands in each problem's row."""

    target_tokens: int | None = Field(default=None, gt=0)
    target_column: str | None = None
    """The column of the problem's row that holds the target, in tokens."""
    alpha: float = Field(default=0.0003, ge=0)
    """Reward lost by each token of distance."""

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.target_tokens is None) == (self.target_column is None):
            raise ValueError(
                f"target_tokens={self.target_tokens!r}, target_column={self.target_column!r}: "
                "exactly one says how long a completion should be; set that one and leave out the other"
            )
        return self


class L1ExactOptions(L1Options):
    pass


class L1MaxOptions(L1Options):
    delta: float = 0.5
    """Paid for a right answer of exactly the target's length."""


class AbstentionOptions(Options):
    right: float = 1.0
    right_with_rubbish: float = 0.5
    """Rubbish: anything that the strict format forbids."""
    abstained: float = 0.0
    wrong: float = -0.5
    wrong_with_rubbish: float = -1.0
    phrases: tuple[str, ...] = (
        "I don't know",
        "I dont know",
        "I do not know",
        "I am not sure",
        "I'm not sure",
        "I cannot answer",
        "unknown",
    )
    """What counts as abstaining when it is the whole answer."""

    @field_validator("phrases")
    @classmethod
    def _some_phrases(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if not phrases or not all(phrase.strip(" .") for phrase in phrases):
            raise ValueError('an empty phrase or none at all; list phrases such as "I don\'t know"')
        return phrases

    @model_validator(mode="after")
    def _strictly_decreasing(self) -> Self:
        names = ("right", "right_with_rubbish", "abstained", "wrong", "wrong_with_rubbish")
        for better, worse in pairwise(names):
            if getattr(self, better) <= getattr(self, worse):
                raise ValueError(
                    f"{worse}={getattr(self, worse)}: not below {better}={getattr(self, better)}; "
                    f"give five numbers that fall from one to the next: {' > '.join(names)}"
                )
        return self


OPTIONS_OF_REWARD: dict[str, type[Options]] = {
    "format": FormatOptions,
    "correctness": CorrectnessOptions,
    "length": LengthOptions,
    "overlong": OverlongOptions,
    "cosine": CosineOptions,
    "l1_exact": L1ExactOptions,
    "l1_max": L1MaxOptions,
    "language": LanguageOptions,
    "repetition": RepetitionOptions,
    "abstention": AbstentionOptions,
}

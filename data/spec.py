"""What a recipe says about where problems come from. Quick to import: no `datasets`, no pandas."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data.errors import DataError, nearest
from data.generated import GENERATORS, checked_options
from data.splits import SHARES


class HubDefault(NamedTuple):
    """Where a named source is found when a recipe gives no path."""

    path: str
    subset: str | None


HUB_DEFAULTS = {
    "gsm8k": HubDefault("openai/gsm8k", "main"),
    "math": HubDefault("nlile/hendrycks-MATH-benchmark", None),
    "knights_knaves": HubDefault("K-and-K/knights-and-knaves", "3ppl"),
}
SOURCES = (*GENERATORS, *HUB_DEFAULTS, "dataset")
_MAPPED_FIELDS = ("question", "gold", "id")

Cell = bool | int | float | str
Option = bool | int | str | list[int | str]


class SourceSpec(BaseModel):
    """One source of problems: generated, well known, or any data set of one's own.

    Example: ``SourceSpec(source="math", path="math500.jsonl", keep={"level": [3, 4, 5]})``. Everything that
    can be wrong without opening a file is refused here, with a message that says what to do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    """arithmetic, countdown, gsm8k, math, knights_knaves or dataset."""
    path: str | None = None
    """A Hugging Face id, or a local .jsonl, .json, .parquet or .csv file, or a folder of such files.

    None takes the source's own data set. For ``math`` that is a MATH whose ``train`` has 12,000 problems
    and whose ``test`` is MATH-500, so that the two never overlap.
    """
    subset: str | None = None
    """The hub's configuration name. For ``knights_knaves`` without a path: 2ppl to 8ppl (default 3ppl)."""
    split: str = "train"
    """A generated source knows train, test, validation and eval, which never share a question."""
    num_problems: int | None = Field(default=None, ge=1)
    """The first so many usable problems, in the source's order; all when None or when there are fewer. A generated
    source draws so many different ones, and has to have them."""
    seed: int = 0
    """Which problems a generated source draws. Other sources do not depend on it."""
    columns: dict[str, str] = Field(default_factory=dict)
    """From question, gold or id to the data's name for it."""
    checker: str | None = None
    """Replaces the checker that the source would choose."""
    keep: dict[str, list[Cell]] = Field(default_factory=dict)
    """Rows are kept whose value in each of these columns is listed. 3, 3.0, "3" and "Level 3" agree."""
    options: dict[str, Option] = Field(default_factory=dict)
    """Settings of a generated source: see `ArithmeticOptions` and `CountdownOptions`."""

    @field_validator("source")
    @classmethod
    def _known_source(cls, source: str) -> str:
        if source not in SOURCES:
            raise DataError(f"source={source!r}: is not a known source; {nearest(source, SOURCES)}")
        return source

    @field_validator("columns")
    @classmethod
    def _known_fields(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name not in _MAPPED_FIELDS:
                raise DataError(
                    f"columns.{name}={columns[name]!r}: is not a field of a problem; {nearest(name, _MAPPED_FIELDS)}"
                )
        return columns

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.is_generated:
            self._check_generated()
        else:
            self._check_read()
        return self

    @property
    def is_generated(self) -> bool:
        """True when the problems are drawn and not read."""
        return self.source in GENERATORS

    def _check_generated(self) -> None:
        checked_options(self.source, self.options)
        if self.num_problems is None:
            raise DataError(f"num_problems=None: {self.source} is generated without end; say how many problems to draw")
        if self.split not in SHARES:
            raise DataError(
                f"split={self.split!r}: is not a split of a generated source; {nearest(self.split, SHARES)}"
            )
        unused: dict[str, Any] = {
            "path": self.path,
            "subset": self.subset,
            "columns": self.columns,
            "keep": self.keep,
        }
        for name, value in unused.items():
            if value:
                raise DataError(f"{name}={value!r}: {self.source} is generated and reads no data; leave {name} out")

    def _check_read(self) -> None:
        if self.options:
            raise DataError(
                f"options={self.options!r}: only generated sources ({', '.join(GENERATORS)}) have options; "
                "leave options out"
            )
        if self.source == "dataset" and not self.path:
            raise DataError(
                f"path={self.path!r}: source=dataset has no data of its own; give a Hugging Face id or a local file"
            )

"""A reward set with its template, as a recipe describes them: the one who judges rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data.templates import TEMPLATES, Template, get_template
from grpo.config import Recipe, ScoringSection, load_recipe
from grpo.errors import UserError
from grpo.judging import open_scorer
from grpo.score.rows import InputRow, request
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.types import Score

DEFAULT_REWARDS = (RewardSpec(name="correctness"), RewardSpec(name="format", weight=0.0))


class Verifier:
    """Judges groups of rows; rows with a fault are passed over."""

    def __init__(self, scorer: Scorer, template: Template) -> None:
        self._scorer = scorer
        self._template = template

    def submit(self, batch: Sequence[list[InputRow]]) -> None:
        """Begin to judge the groups of a batch; returns at once."""
        for group in batch:
            if group[0].fault is None:
                self._scorer.submit(request(group, self._template))

    def collect(self, batch: Sequence[list[InputRow]]) -> list[Score | None]:
        """Wait for the batch submitted last: a score for each of its rows, None for one with a fault."""
        scores = iter(self._scorer.collect())
        return [score for group in batch for score in (next(scores) if group[0].fault is None else [None] * len(group))]


@contextmanager
def open_verifier(recipe: Recipe | None) -> Iterator[Verifier]:
    """The verifier of a recipe, or correctness in a chat's tags without one."""
    rewards, scoring = (recipe.rewards, recipe.scoring) if recipe else (DEFAULT_REWARDS, ScoringSection())
    template = get_template(recipe.data.template) if recipe else TEMPLATES["chat"]
    with open_scorer(rewards, scoring) as scorer:
        yield Verifier(scorer, template)


def recipe_of(file: Path | None, overrides: Sequence[str]) -> Recipe | None:
    """The recipe that the command line names, if it names one. Raises UserError for overrides of nothing."""
    if file is None and overrides:
        raise UserError(f"override={overrides[0]}: there is no recipe to change; give one with --recipe")
    return load_recipe(file, overrides) if file else None

"""A reward set with its template, as a recipe describes them: the one who judges rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data.templates import TEMPLATES, Template, get_template
from grpo.errors import UserError
from grpo.recipe.load import load_recipe
from grpo.recipe.sections import Recipe, ScoringSection
from grpo.rollout.scoring import open_scorer
from grpo.score.failed_rewards import FailedRewards
from grpo.score.rows import Batch, request
from rewards.records import Score
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.workers.ahead import one_ahead

DEFAULT_REWARDS = (RewardSpec(name="correctness"), RewardSpec(name="format", weight=0.0))


class RowScorer:
    """Judges groups of rows; rows with a fault are passed over. `failed` has the rewards that failed on the way."""

    def __init__(self, scorer: Scorer, template: Template) -> None:
        self.failed = FailedRewards()
        self._scorer = scorer
        self._template = template

    def submit(self, batch: Batch) -> None:
        """Begin to judge the groups of a batch; returns at once."""
        for group in batch:
            if group[0].fault is None:
                self._scorer.submit(request(group, self._template))

    def collect(self, batch: Batch) -> list[Score | None]:
        """Wait for the batch that was submitted first: a score for each of its rows, None for one with a fault."""
        scores: list[Score | None] = []
        for group in batch:
            if group[0].fault is not None:
                scores += [None] * len(group)
                continue
            of_group, faults = self._scorer.collect_first()
            self.failed.see(group[0].number, faults)
            scores += of_group
        return scores


def begun(batches: Iterable[Batch], judges: Sequence[RowScorer]) -> Iterator[Batch]:
    """The batches, each handed on when all judges have it before them, and the one behind it as well."""
    return one_ahead(_submitted(batches, judges))


def _submitted(batches: Iterable[Batch], judges: Sequence[RowScorer]) -> Iterator[Batch]:
    for batch in batches:
        for judge in judges:
            judge.submit(batch)
        yield batch


@contextmanager
def open_scoring(recipe: Recipe | None) -> Iterator[RowScorer]:
    """The judge that a recipe describes, or correctness in a chat's tags without one."""
    scoring = recipe.scoring if recipe else ScoringSection()
    template = get_template(recipe.data.template) if recipe else TEMPLATES["chat"]
    with open_scorer(rewards_of(recipe), scoring) as scorer:
        yield RowScorer(scorer, template)


def rewards_of(recipe: Recipe | None) -> Sequence[RewardSpec]:
    """What a recipe pays for, or what is paid for without one."""
    return recipe.rewards if recipe else DEFAULT_REWARDS


def recipe_of(file: Path | None, overrides: Sequence[str]) -> Recipe | None:
    """The recipe that the command line names, if it names one. Raises UserError for overrides of nothing."""
    if file is None and overrides:
        raise UserError(f"override={overrides[0]}: there is no recipe to change; give one with --recipe")
    return load_recipe(file, overrides) if file else None

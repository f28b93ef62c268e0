"""Scores rows of a file with the rewards, template and limits of a recipe, or with the default ones."""

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
from grpo.score.rows import Batch, score_request
from rewards.records import Score
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.workers.ahead import one_ahead

DEFAULT_REWARDS = (RewardSpec(name="correctness"), RewardSpec(name="format", weight=0.0))


class RowScorer:
    """Scores groups of rows; rows with a fault get none. `failed` counts the rewards that failed on the way."""

    def __init__(self, scorer: Scorer, template: Template) -> None:
        self.failed = FailedRewards()
        self._scorer = scorer
        self._template = template

    def submit(self, batch: Batch) -> None:
        """Begin to score the groups of a batch; returns at once."""
        for group in batch:
            if group[0].fault is None:
                self._scorer.submit(score_request(group, self._template))

    def collect(self, batch: Batch) -> list[Score | None]:
        """Wait for the batch that was submitted first: a score for each of its rows, None for one with a fault."""
        scores: list[Score | None] = []
        for group in batch:
            if group[0].fault is not None:
                scores += [None] * len(group)
                continue
            of_group, faults = self._scorer.collect_first()
            self.failed.add(group[0].number, faults)
            scores += of_group
        return scores


def submitted_ahead(batches: Iterable[Batch], scorers: Sequence[RowScorer]) -> Iterator[Batch]:
    """The batches, each handed on once it and the next one have been submitted to all scorers."""
    return one_ahead(_submit_all(batches, scorers))


def _submit_all(batches: Iterable[Batch], scorers: Sequence[RowScorer]) -> Iterator[Batch]:
    for batch in batches:
        for scorer in scorers:
            scorer.submit(batch)
        yield batch


@contextmanager
def open_row_scorer(recipe: Recipe | None) -> Iterator[RowScorer]:
    """The rewards of a recipe; without one `DEFAULT_REWARDS`, for answers in the tags of the template ``chat``."""
    scoring = recipe.scoring if recipe else ScoringSection()
    template = get_template(recipe.data.template) if recipe else TEMPLATES["chat"]
    with open_scorer(rewards_of(recipe), scoring) as scorer:
        yield RowScorer(scorer, template)


def rewards_of(recipe: Recipe | None) -> Sequence[RewardSpec]:
    """The rewards of a recipe, or the default ones without it."""
    return recipe.rewards if recipe else DEFAULT_REWARDS


def load_named_recipe(file: Path | None, overrides: Sequence[str]) -> Recipe | None:
    """The recipe that ``--recipe`` names, or None. Raises UserError for overrides without a recipe."""
    if file is None and overrides:
        raise UserError(f"override={overrides[0]}: there is no recipe to change; give one with --recipe")
    return load_recipe(file, overrides) if file else None

"""`grpo score FILE --selfcheck`: the golds that do not grade themselves correct."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from data.errors import DataError
from data.sources import load_problems
from data.spec import SourceSpec
from grpo.errors import UserError
from grpo.recipe.load import load_recipe
from grpo.recipe.sections import Recipe, ScoringSection
from grpo.rollout.scoring import open_scorer
from grpo.score.output import open_writer, progress, short
from grpo.score.row_scorer import load_named_recipe
from grpo.score.rows import checker_of, gold_text, read_golds, require_file
from rewards.checkers import checker_fault
from rewards.jsonl import RowWriter
from rewards.scorer import Scorer
from rewards.spec import RewardSpec

_GOLDS_PER_BATCH = 1024
_ANY_REWARD = (RewardSpec(name="correctness"),)


@dataclass(frozen=True)
class GoldRow:
    """One gold, and where it stands."""

    source: str
    """The recipe's name for it; empty for a row of a file."""
    row: int
    gold: str
    checker: str
    reason: str | None = None
    """Why it cannot be used; None where no fault has been found yet."""

    def line(self) -> str:
        """The gold and its reason for the screen."""
        where = f"{self.source} row {self.row}" if self.source else f"row {self.row}"
        gold = f"gold {short(self.gold)}: " if self.gold else ""
        return f"{where}: {gold}{short(self.reason)}"


def check_golds(file: Path, recipe_file: Path | None, overrides: Sequence[str], out: Path | None) -> bool:
    """Whether every gold of a file grades itself correct; those that do not are listed, with the reason.

    `file` is a JSONL file with ``gold`` and, where it is not math, ``checker``; or a recipe (.yaml), all of whose
    sources are checked, with its own limits and policy. `out` gets the list as JSON lines. No model is loaded.
    """
    golds, scoring = _load_golds(file, recipe_file, overrides)
    bad = 0
    with ExitStack() as stack:
        scorer = stack.enter_context(open_scorer(_ANY_REWARD, scoring))
        writer = stack.enter_context(open_writer(out, file)) if out else None
        advance = stack.enter_context(progress(len(golds), rows_on_screen=True))
        for start in range(0, len(golds), _GOLDS_PER_BATCH):
            batch = golds[start : start + _GOLDS_PER_BATCH]
            bad += _report(_bad_golds(batch, scorer), writer)
            advance(len(batch))
    found = f"{bad} do not grade themselves correct" if bad else "all grade themselves correct"
    print(f"{len(golds)} golds: {found}", file=sys.stderr)
    return bad == 0


def _load_golds(file: Path, recipe_file: Path | None, overrides: Sequence[str]) -> tuple[list[GoldRow], ScoringSection]:
    """All golds of a JSONL file or of a recipe's sources, and the limits and policy to check them with."""
    require_file(file)
    if file.suffix not in (".yaml", ".yml"):
        recipe = load_named_recipe(recipe_file, overrides)
        return list(_golds_of_file(file)), recipe.scoring if recipe else ScoringSection()
    if recipe_file:
        raise UserError(f"--recipe={recipe_file}: {file} is a recipe itself; leave one of the two out")
    own = load_recipe(file, overrides)
    sources = _sources(own)
    _require_checkers(sources)
    return [gold for name, spec in sources for gold in _golds_of_source(name, spec)], own.scoring


def _report(bad: Sequence[GoldRow], writer: RowWriter | None) -> int:
    """Print golds that cannot be used, and write them to `writer` if there is one. Returns their number."""
    for one in bad:
        print(one.line(), flush=True)
        if writer:
            where = {"source": one.source} if one.source else {}
            writer.write({**where, "row": one.row, "gold": one.gold, "checker": one.checker, "reason": one.reason})
    return len(bad)


def _sources(recipe: Recipe) -> list[tuple[str, SourceSpec]]:
    held_out = [(f"eval.sources.{index}", spec) for index, spec in enumerate(recipe.eval.sources)]
    return [("data.train", recipe.data.train), *held_out]


def _require_checkers(sources: Sequence[tuple[str, SourceSpec]]) -> None:
    """Raise UserError that names every source with a checker that there is not."""
    found = ((name, checker_fault(spec.checker or "math")) for name, spec in sources)
    if faults := [f"{name}.{fault}" for name, fault in found if fault]:
        raise UserError("\n".join(faults))


def _golds_of_source(source: str, spec: SourceSpec) -> list[GoldRow]:
    """All rows of a source in its order; those that hold no problem have their reason already."""
    try:
        loaded = load_problems(spec)
    except DataError as error:
        raise UserError(f"{source}.{error}") from None
    rows = [GoldRow(source, one.row, one.gold, one.checker) for one in loaded.problems]
    rows += [GoldRow(source, one.row, "", spec.checker or "", one.reason) for one in loaded.rejected]
    return sorted(rows, key=lambda one: one.row)


def _golds_of_file(file: Path) -> Iterator[GoldRow]:
    for row in read_golds(file):
        gold = "" if row.fault else gold_text(row.fields["gold"])
        yield GoldRow("", row.number, gold, checker_of(row.fields), row.fault)


def _bad_golds(batch: Sequence[GoldRow], scorer: Scorer) -> list[GoldRow]:
    """The golds of a batch that cannot be used, in their order, each with its reason."""
    readable = [one for one in batch if one.reason is None]
    reasons = iter(scorer.check_golds([(one.checker, one.gold) for one in readable]))
    checked = [one if one.reason else replace(one, reason=next(reasons)) for one in batch]
    return [one for one in checked if one.reason]

"""Commands that need no training: evaluating a model, and scoring completions that are already written."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.templates import TEMPLATES, Template
from grpo.config import Recipe, ScoringSection, load_recipe
from grpo.errors import UserError
from grpo.judging import open_scorer
from grpo.preflight import find_template
from rewards.checkers import CHECKERS
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.types import Response, Score, ScoreRequest

DEFAULT_REWARDS = (RewardSpec(name="correctness"), RewardSpec(name="format", weight=0.0))


def evaluate_model(recipe: Recipe, json_file: Path | None) -> None:
    """Evaluate `model.path` on the recipe's held-out sets, print the table, and write it where asked."""
    from grpo.assemble import open_engine, open_evaluator, open_judge
    from grpo.display import evaluation_lines
    from grpo.meter import Meter
    from grpo.preflight import prepare
    from grpo.rollout.rollouts import Rollouts
    from grpo.rollout.sync import LoadedOnce
    from grpo.world import join_world

    if not recipe.eval.sources:
        raise UserError("eval.sources: empty; name a held-out source, such as {source: arithmetic, split: test}")
    with ExitStack() as stack:
        meter = Meter()
        world = join_world(recipe.run.device)
        stack.callback(world.close)
        judge = open_judge(recipe, meter)
        stack.callback(judge.close)
        material = prepare(recipe, judge, print, for_training=False)
        logs = Path(tempfile.mkdtemp(prefix="grpo-eval-"))
        engine = open_engine(recipe, material, world, logs)
        stack.callback(engine.close)
        rollouts = Rollouts(engine, LoadedOnce(), material.tokenizer.decode, recipe.run.seed, meter)
        evaluator = open_evaluator(recipe, material, rollouts, judge, world, meter)
        found = evaluator.evaluate(0)
        # An engine that failed names its log, which then has to be there.
        shutil.rmtree(logs)
    row = {"step": 0, **found.metrics}
    print("\n".join(evaluation_lines(row, 0)))
    if json_file:
        json_file.write_text(json.dumps(found.metrics, indent=1) + "\n")


@dataclass(frozen=True)
class _Row:
    """One line of the input: what it says, or why it cannot be used."""

    number: int
    fields: Mapping[str, Any]
    fault: str | None = None


def score_file(completions: Path, recipe_file: Path | None, out: Path | None) -> None:
    """Score every row of a JSONL file, in its order; a bad row is named and passed over.

    A row has ``completion`` (or ``text``) and ``gold``, and may have ``checker`` (default ``math``), ``question``,
    ``num_tokens``, ``finish``, ``opens_think`` and ``answer_style`` (else the recipe's template says), and ``group``
    (or ``step`` with ``problem_id``): neighbours with the same one are scored as one group.
    """
    if not completions.is_file():
        raise UserError(f"FILE={completions}: no such file; give a JSONL file of completions")
    recipe = load_recipe(recipe_file) if recipe_file else None
    rows = list(_read(completions))
    with ExitStack() as stack:
        scorer = stack.enter_context(
            open_scorer(recipe.rewards, recipe.scoring) if recipe else open_scorer(DEFAULT_REWARDS, ScoringSection())
        )
        sink = stack.enter_context(out.open("w", encoding="utf-8")) if out else sys.stdout
        scored = _score(rows, scorer, find_template(recipe) if recipe else TEMPLATES["chat"])
        for row, score in zip(rows, scored, strict=True):
            print(json.dumps(_result(row, score), ensure_ascii=False), file=sink)
        sink.flush()
    faults = [row for row in rows if row.fault]
    for row in faults[:20]:
        print(f"row {row.number}: {row.fault}", file=sys.stderr)
    _summarise([score for score in scored if score], len(faults))


def _read(file: Path) -> Iterator[_Row]:
    with file.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle):
            try:
                fields = json.loads(line)
            except ValueError as error:
                yield _Row(number, {}, f"not JSON ({error}); mend the line")
                continue
            yield (
                _Row(number, fields, _fault(fields))
                if isinstance(fields, dict)
                else _Row(number, {}, "not an object; write {…} on each line")
            )


def _fault(fields: Mapping[str, Any]) -> str | None:
    if not isinstance(fields.get("completion", fields.get("text")), str):
        return "completion: missing or not text; name the column completion or text"
    if not isinstance(fields.get("gold"), str):
        return "gold: missing or not text; give the reference answer as a string"
    if fields.get("checker", "math") not in CHECKERS:
        return f"checker={fields['checker']!r}: unknown; use one of {', '.join(CHECKERS)}"
    return None


def _score(rows: Iterable[_Row], scorer: Scorer, template: Template) -> list[Score | None]:
    """One score a row, None for rows with a fault."""
    sizes: list[tuple[list[_Row], bool]] = []
    for key, neighbours in itertools.groupby(rows, key=_group_key):
        group = list(neighbours)
        fault = group[0].fault
        sizes.append((group, fault is None))
        if fault is None:
            scorer.submit(_request(group, str(key), template))
    scores = iter(scorer.collect())
    return [score for group, usable in sizes for score in (next(scores) if usable else [None] * len(group))]


def _group_key(row: _Row) -> tuple[Any, ...]:
    fields = row.fields
    if row.fault:
        return ("fault", row.number)
    if "group" in fields:
        return ("group", fields["group"], fields["gold"])
    if "problem_id" in fields:
        return ("problem", fields.get("step"), fields["problem_id"], fields["gold"])
    return ("row", row.number)


def _request(group: list[_Row], name: str, template: Template) -> ScoreRequest:
    first = group[0].fields
    return ScoreRequest(
        id=name,
        question=str(first.get("question", "")),
        gold=first["gold"],
        checker=first.get("checker", "math"),
        responses=tuple(_response(row.fields) for row in group),
        opens_think=bool(first.get("opens_think", template.opens_think)),
        answer_style=first.get("answer_style", template.answer_style),
        columns=first,
        step=int(first.get("step", 0)),
    )


def _response(fields: Mapping[str, Any]) -> Response:
    text = fields.get("completion", fields.get("text", ""))
    return Response(text, int(fields.get("num_tokens", 0)), fields.get("finish") == "length")


def _result(row: _Row, score: Score | None) -> dict[str, Any]:
    if score is None:
        return {**row.fields, "error": row.fault}
    judged = {
        "reward": score.reward,
        "parts": dict(score.parts),
        "outcome": score.outcome,
        "answer": score.answer,
        "reason": score.reason,
        "cpu_s": round(score.cpu_s, 6),
    }
    return {**row.fields, **judged}


def _summarise(scores: list[Score], num_faults: int) -> None:
    """Shares of the outcomes and the mean reward, on stderr so that rows on stdout stay clean."""
    counts: dict[str, int] = {}
    for score in scores:
        counts[score.outcome.value] = counts.get(score.outcome.value, 0) + 1
    shares = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    mean = sum(score.reward for score in scores) / len(scores) if scores else 0.0
    print(f"{len(scores)} completions, mean reward {mean:.4f}: {shares}; {num_faults} bad rows", file=sys.stderr)

"""Evaluating a model without training it."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from grpo.assemble import open_engine, open_evaluator, open_judge
from grpo.config import Recipe
from grpo.display import evaluation_lines
from grpo.errors import UserError
from grpo.meter import Meter
from grpo.preflight import prepare
from grpo.rollout.rollouts import Rollouts
from grpo.rollout.sync import LoadedOnce
from grpo.world import join_world


def evaluate_model(recipe: Recipe, json_file: Path | None) -> None:
    """Evaluate `model.path` on the recipe's held-out sets, print the table, and write it where asked."""
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

"""Evaluating a model without training it."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from grpo.assemble import open_engine, open_evaluator, open_group_scorer, speaker
from grpo.errors import UserError
from grpo.parallel.world import join_world
from grpo.phases import PhaseClock
from grpo.preflight import prepare
from grpo.recipe.sections import Recipe
from grpo.rollout.generate import Rollouts
from grpo.rollout.weight_sync.proof import LoadedOnce
from grpo.run.screen import evaluation_lines


def evaluate_model(recipe: Recipe, json_file: Path | None) -> None:
    """Evaluate `model.path` on the recipe's held-out sets, print the table, and write it where asked.

    All ranks share the work; the first one prints and writes.
    """
    if not recipe.eval.sources:
        raise UserError("eval.sources: empty; name a held-out source, such as {source: arithmetic, split: test}")
    with ExitStack() as stack:
        clock = PhaseClock()
        world = stack.enter_context(join_world(recipe.run.device, recipe.run.rank_timeout_s))
        scorer = open_group_scorer(recipe, clock, world)
        stack.callback(scorer.close)
        inputs = prepare(recipe, scorer, speaker(world), for_training=False)
        logs = Path(tempfile.mkdtemp(prefix="grpo-eval-"))
        engine = open_engine(recipe, inputs, world, logs)
        stack.callback(engine.close)
        rollouts = Rollouts(engine, LoadedOnce(), inputs.tokenizer.decode, recipe.run.seed, clock)
        evaluator = open_evaluator(recipe, inputs, rollouts, scorer, world, clock)
        found = evaluator.evaluate(0)
        # An engine that failed names its log, which then has to be there.
        shutil.rmtree(logs)
    if world.rank > 0:
        return
    row = {"step": 0, **found.metrics}
    print("\n".join(evaluation_lines(row, 0)))
    if json_file:
        json_file.write_text(json.dumps(found.metrics, indent=1) + "\n")

"""Every recipe that ships is loaded, and runs for two steps on a CPU with a small model and small counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import run_grpo

from grpo.recipe.load import dump_recipe, load_recipe, parse_recipe
from grpo.recipe.sections import advantage_of, normalisation_of

RECIPES = sorted((Path(__file__).parents[2] / "launch" / "recipes").glob("*.yaml"))

PROBLEMS = [{"problem": f"What is {n} + 1?", "answer": str(n + 1), "level": "Level 4"} for n in range(12)]
GRADE_SCHOOL = [{"question": f"What is {n} + 1?", "answer": f"Add them. #### {n + 1}"} for n in range(12)]
LOCAL_ROWS = {"math_r1_zero": PROBLEMS, "gsm8k": GRADE_SCHOOL}

SMALL = [
    "run.steps=2",
    "run.device=cpu",
    "model.compute=fp32",
    "rollout.engine=transformers",
    "rollout.dtype=float32",
    "rollout.sync_tolerance=0.02",
    "rollout.prompts_per_step=2",
    "rollout.group_size=2",
    "rollout.max_new_tokens=8",
    "data.max_prompt_tokens=1000",
    "update.warmup_steps=1",
    "update.tokens_per_micro_batch=2048",
    "eval.every=0",
    "eval.sources.0.num_problems=4",
]


def test_there_are_recipes() -> None:
    assert {file.stem for file in RECIPES} >= {"quickstart", "gsm8k", "countdown", "math_r1_zero"}


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_it_loads_and_survives_being_written_out(file: Path) -> None:
    import yaml

    recipe = load_recipe(file)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), "again") == recipe


def test_the_r1_zero_recipe_is_dr_grpos_setting() -> None:
    recipe = load_recipe(next(file for file in RECIPES if file.stem == "math_r1_zero"))
    assert (recipe.update.lr, recipe.update.kl_weight) == (1e-6, 0)
    assert (recipe.rollout.group_size, recipe.rollout.prompts_per_step, recipe.rollout.max_new_tokens) == (8, 128, 3000)
    assert (advantage_of(recipe.update), normalisation_of(recipe.update)) == ("group_mean", "constant")


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_it_runs_for_two_steps_with_small_overrides(file: Path, tmp_path: Path, chat_model: Path) -> None:
    overrides = [*SMALL, f"run.dir={tmp_path / 'run'}", f"model.path={chat_model}"]
    if rows := LOCAL_ROWS.get(file.stem):
        data = tmp_path / "train.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        overrides += [f"data.train.path={data}", f"eval.sources.0.path={data}"]
    else:
        overrides.append("data.train.num_problems=12")
    code, output = run_grpo("train", str(file), *overrides)
    assert code == 0, output
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]

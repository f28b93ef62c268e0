"""What may change when a run goes on: settings that change nothing that it learns, and each change is written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import run_grpo, write_recipe
from toy import toy_recipe

from grpo.errors import EngineError, UserError
from grpo.recipe.load import parse_recipe
from grpo.recipe.resume import RESUMABLE, changes
from grpo.recipe.sections import Recipe
from grpo.run.folder import RunFolder

AFTER_AN_OOM: dict[str, dict[str, Any]] = {
    "model": {"gradient_checkpointing": True},
    "rollout": {"gpu_memory_frac": 0.3, "max_parallel": 3, "cpu_kv_cache_gib": 0.05, "eager": True},
    "update": {"tokens_per_micro_batch": 80},
    "eval": {"sources": [{"source": "arithmetic", "split": "validation", "num_problems": 4}], "every": 1},
    "log": {"completions_part_mib": 0.01},
}


def toy(model: Path, run_dir: Path, **sections: dict[str, Any]) -> Recipe:
    return parse_recipe(toy_recipe(model, run_dir, **sections), "toy")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


# Which keys

FREE = [
    ("run", {"rank_timeout_s": 60.0}),
    ("run", {"steps": 9}),
    ("model", {"compile": True}),
    ("data", {"max_bad_frac": 0.9}),
    ("rollout", {"tensor_parallel": 2}),
    ("rollout", {"timeout_s": 60.0}),
    ("rollout", {"sync_tolerance": 0.5}),
    ("update", {"max_bad_steps": 50}),
    ("scoring", {"workers": 3, "deadline_s": 1.0, "memory_gib": 1.0, "max_failed_frac": 1.0, "when_failing": "warn"}),
    ("checkpoint", {"every": 7, "keep": 9}),
    ("log", {"show_every": 0, "completions_keep_gib": 1.0}),
]
BOUND = [
    ("run", {"seed": 1}, "run.seed"),
    ("model", {"path": "elsewhere"}, "model.path"),
    ("model", {"compute": "bf16"}, "model.compute"),
    ("model", {"lora": {}}, "model.lora.rank"),
    ("data", {"template": "chat"}, "data.template"),
    ("data", {"max_prompt_tokens": 60}, "data.max_prompt_tokens"),
    ("data", {"train": {"source": "arithmetic", "num_problems": 65}}, "data.train.num_problems"),
    ("rollout", {"prompts_per_step": 5}, "rollout.prompts_per_step"),
    ("rollout", {"group_size": 5}, "rollout.group_size"),
    ("rollout", {"max_rounds": 2}, "rollout.max_rounds"),
    ("rollout", {"max_new_tokens": 11}, "rollout.max_new_tokens"),
    ("rollout", {"temperature": 0.9}, "rollout.temperature"),
    ("rollout", {"engine": "vllm"}, "rollout.engine"),
    ("rollout", {"dtype": "bfloat16"}, "rollout.dtype"),
    ("rollout", {"stop": ["!"]}, "rollout.stop.0"),
    ("update", {"lr": 1e-6}, "update.lr"),
    ("update", {"inner_epochs": 2}, "update.inner_epochs"),
    ("rewards", [{"name": "toy:lower_case_share", "weight": 2.0}], "rewards.0.weight"),
    ("scoring", {"format_gates": True}, "scoring.format_gates"),
]


def with_section(recipe: dict[str, Any], name: str, value: Any) -> Recipe:
    changed = {**recipe.get(name, {}), **value} if isinstance(value, dict) else value
    return parse_recipe(recipe | {name: changed}, "changed")


@pytest.mark.parametrize(("name", "value"), [*FREE, *AFTER_AN_OOM.items()])
def test_what_changes_nothing_that_is_learnt_may_change(name: str, value: Any, tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path, tmp_path / "run")
    found = changes(parse_recipe(recipe, "toy"), with_section(recipe, name, value))
    assert found
    assert all(change.may_change for change in found)


@pytest.mark.parametrize(("name", "value", "key"), BOUND, ids=[key for *_, key in BOUND])
def test_all_else_belongs_to_the_run(name: str, value: Any, key: str, tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path, tmp_path / "run")
    found = changes(parse_recipe(recipe, "toy"), with_section(recipe, name, value))
    assert key in {change.key for change in found if not change.may_change}


def test_steps_belong_to_a_run_whose_rate_depends_on_them(tmp_path: Path) -> None:
    before, after = (
        toy(tmp_path, tmp_path / "run", run={"steps": steps}, update={"schedule": "cosine"}) for steps in (3, 4)
    )
    [change] = changes(before, after)
    assert (change.key, change.old, change.new, change.may_change) == ("run.steps", 3, 4, False)


def test_every_free_key_is_one_of_a_recipe(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tmp_path / "run")
    for key in RESUMABLE:
        value: Any = recipe
        for name in key.split("."):
            value = getattr(value, name)


# A run's folder


def test_a_refusal_shows_both_values(tiny_model: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", toy(tiny_model, tmp_path / "run")):
        pass
    other = toy(tiny_model, tmp_path / "run", update={"lr": 0.5, "betas": [0.9, 0.99]}, rollout={"max_parallel": 1})
    expected = r"differs in update.betas.1=0.99 \(the run has 0.95\), update.lr=0.5 \(the run has 0.003\); set another"
    with pytest.raises(UserError, match=expected), RunFolder(tmp_path / "run", other):
        pass


def test_a_start_that_fails_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with RunFolder(run_dir, toy(tiny_model, run_dir)) as folder:
        folder.append("metrics.jsonl", [{"step": 0}])
    before = (run_dir / "recipe.yaml").read_text()
    changed = toy(tiny_model, run_dir, update={"tokens_per_micro_batch": 100})
    with pytest.raises(EngineError), RunFolder(run_dir, changed):
        raise EngineError("out of memory")
    assert (run_dir / "recipe.yaml").read_text() == before
    assert not (run_dir / "recipe_changes.jsonl").exists()
    with RunFolder(run_dir, changed) as folder:
        assert folder.go_on(0) == ["from step 1 on: update.tokens_per_micro_batch=100 (was 256)"]
    assert yaml.safe_load((run_dir / "recipe.yaml").read_text())["update"]["tokens_per_micro_batch"] == 100


def test_after_an_oom_a_run_goes_on_with_smaller_settings_to_the_same_end(tiny_model: Path, tmp_path: Path) -> None:
    """As if it had had them from the start, or had never needed them."""
    whole = write_recipe(tmp_path / "whole.yaml", toy_recipe(tiny_model, tmp_path / "whole", run={"steps": 4}))
    first = write_recipe(tmp_path / "first.yaml", toy_recipe(tiny_model, tmp_path / "run"))
    longer = toy_recipe(tiny_model, tmp_path / "run", run={"steps": 4})
    smaller = {name: {**longer.get(name, {}), **changed} for name, changed in AFTER_AN_OOM.items()}
    rest = write_recipe(tmp_path / "rest.yaml", longer | smaller)
    outputs = []
    for file in (whole, first, rest, rest):
        code, output = run_grpo("train", file)
        assert code == 0, output
        outputs.append(output)

    learnt = ("reward", "update", "completion", "gap", "outcome")
    for one, other in zip(rows(tmp_path / "whole/metrics.jsonl"), rows(tmp_path / "run/metrics.jsonl"), strict=True):
        numbers = {key: value for key, value in one.items() if key.startswith(learnt)}
        assert {key: other[key] for key in numbers} == pytest.approx(numbers, abs=1e-5)

    noted = {row["key"]: row for row in rows(tmp_path / "run" / "recipe_changes.jsonl")}
    assert {row["step"] for row in noted.values()} == {3}
    assert noted["update.tokens_per_micro_batch"]["old"] == 256
    assert noted["update.tokens_per_micro_batch"]["new"] == 80
    assert noted["eval.sources.0.split"]["new"] == "validation"
    assert "from step 3 on: update.tokens_per_micro_batch=80 (was 256)" in outputs[2]
    # Started once more with the same recipe there is nothing to say.
    assert len(noted) == len(rows(tmp_path / "run" / "recipe_changes.jsonl"))
    assert "from step" not in outputs[3]

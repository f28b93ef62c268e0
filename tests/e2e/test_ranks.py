"""Two ranks train as one does: the same problems, the same completions, the same update."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import environment, run_grpo, write_recipe
from toy import toy_recipe

pytestmark = pytest.mark.e2e
STEPS = 3


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def run_ranks(num_ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    command = [sys.executable, *launcher, "-m", "grpo", *arguments]
    variables = {**environment(), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240)


def test_two_ranks_learn_what_one_does(tiny_model: Path, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"run": {"steps": STEPS}, "rollout": {"prompts_per_step": 5}}
    alone = write_recipe(tmp_path / "alone.yaml", toy_recipe(tiny_model, tmp_path / "alone", **sections))
    code, output = run_grpo("train", alone)
    assert code == 0, output
    together = write_recipe(tmp_path / "together.yaml", toy_recipe(tiny_model, tmp_path / "together", **sections))
    launched = run_ranks(2, "train", together)
    assert launched.returncode == 0, launched.stderr

    for one, two in zip(metrics(tmp_path / "alone"), metrics(tmp_path / "together"), strict=True):
        learnt = [key for key in one if not key.startswith(("time", "speed", "sync"))]
        assert {key: two[key] for key in learnt} == pytest.approx({key: one[key] for key in learnt}, abs=1e-5)
    facts = json.loads((tmp_path / "together" / "environment.json").read_text())
    assert facts["num_ranks"] == 2


def test_a_rank_that_fails_ends_all(tiny_model: Path, tmp_path: Path) -> None:
    recipe = toy_recipe(
        tiny_model, tmp_path / "run", rewards=[{"name": "toy:fail_on_odd_ranks"}], scoring={"max_failed_frac": 0.25}
    )
    launched = run_ranks(2, "train", write_recipe(tmp_path / "recipe.yaml", recipe))
    assert launched.returncode != 0
    assert "failed on purpose" in launched.stderr


def test_more_ranks_than_prompts_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    recipe = toy_recipe(tiny_model, tmp_path / "run", rollout={"prompts_per_step": 1})
    launched = run_ranks(2, "train", write_recipe(tmp_path / "recipe.yaml", recipe))
    assert launched.returncode != 0
    assert "rollout.prompts_per_step=1: fewer than the 2 ranks" in launched.stderr
    assert not (tmp_path / "run").exists()


def test_one_rank_speaks_for_all_of_an_evaluation(tiny_model: Path, tmp_path: Path) -> None:
    """The JSON goes to the screen too, so that it shows how many ranks have written it."""
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_recipe(tiny_model, tmp_path / "run"))
    code, alone = run_grpo("eval", recipe, "--json", "/dev/stdout")
    assert code == 0, alone
    launched = run_ranks(2, "eval", recipe, "--json", "/dev/stdout")
    assert launched.returncode == 0, launched.stderr
    said = launched.stdout.splitlines()
    assert [line for line in said if line.startswith("eval")] == [
        line for line in alone.splitlines() if line.startswith("eval")
    ]
    assert sum(line.startswith("eval.sources.0: 8 problems") for line in said) == 1
    assert launched.stdout.count('"eval/arithmetic/accuracy":') == 1

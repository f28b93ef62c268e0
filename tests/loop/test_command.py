"""The `grpo` command: quick to answer, and its commands that need no training."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import run_grpo, write_recipe
from toy import toy_recipe

from grpo.cli import EXIT_USER_ERROR


def test_help_answers_within_a_second() -> None:
    began = time.perf_counter()
    output = subprocess.run([sys.executable, "-m", "grpo", "--help"], capture_output=True, text=True, check=True).stdout
    assert time.perf_counter() - began < 1
    assert all(command in output for command in ("train", "eval", "score", "report"))


def test_a_bad_recipe_is_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("run: {}")
    script = f"""
import sys
from grpo.cli import main
try:
    main(["train", {str(tmp_path / "recipe.yaml")!r}])
except SystemExit as exit_:
    print(exit_.code, sorted({{"torch", "transformers", "vllm", "datasets", "sympy"}} & set(sys.modules)))
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == f"{EXIT_USER_ERROR} []"


@pytest.mark.parametrize("own", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_a_command_has_threads_wait_briefly_unless_the_user_says_how(own: dict[str, str]) -> None:
    """Seen in what starts without torch; the engine is told the same where it runs on a CPU, with a command or not."""
    script = """
import os, torch
from grpo.cli import main
from grpo.rollout.engines.vllm_client import _environment
def told():
    here = os.environ | _environment(torch.device("cpu"))
    return {name: value for name, value in here.items() if name.startswith(("OMP_", "GOMP_"))}
print(told())
try:
    main(["report", "nowhere"])
except SystemExit:
    print(told())
"""
    environment = {name: value for name, value in os.environ.items() if "OMP_" not in name} | own
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    expected = own or {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
    assert [ast.literal_eval(line) for line in output.stdout.splitlines()] == [expected] * 2


def test_eval_prints_and_writes_the_metrics(tmp_path: Path, tiny_model: Path) -> None:
    sources = [{"source": "arithmetic", "split": "test", "num_problems": 6}]
    changes = {"sources": sources, "num_completions": 4, "temperature": 1.0}
    recipe = toy_recipe(tiny_model, tmp_path / "run", eval=changes)
    code, output = run_grpo(
        "eval", write_recipe(tmp_path / "recipe.yaml", recipe), "--json", str(tmp_path / "metrics.json")
    )
    assert code == 0, output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["eval/arithmetic/num_problems"] == 6
    assert {"eval/arithmetic/pass_at_2", "eval/arithmetic/pass_at_4", "eval/arithmetic/maj_at_4"} <= metrics.keys()
    assert "arithmetic" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "eval", "score", "report"])
def test_every_command_explains_itself(command: str) -> None:
    code, output = run_grpo(command, "--help")
    assert code == 0
    assert "usage: grpo" in output


def test_report_of_a_folder_that_is_no_run(tmp_path: Path) -> None:
    code, output = run_grpo("report", str(tmp_path))
    assert code == EXIT_USER_ERROR
    assert str(tmp_path) in output
    assert "Traceback" not in output

"""The `grpo` command: quick to answer, and its commands that need no training."""

from __future__ import annotations

import json
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


ROWS = [
    {"completion": "<think>a</think><answer>4</answer>", "gold": "4", "checker": "integer", "opens_think": False},
    {"completion": "<think>a</think><answer>5</answer>", "gold": "4", "checker": "integer"},
    {"completion": "no tags", "gold": "4", "checker": "integer"},
    {"completion": "<answer>4</answer>"},
    {"text": "so <think>b</think><answer>\\frac{1}{2}</answer>", "gold": "0.5"},
]


def test_score_keeps_the_order_and_names_bad_rows(tmp_path: Path) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "not json\n")
    code, output = run_grpo("score", str(file), "--out", str(out))
    assert code == 0, output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row.get("outcome") for row in rows] == ["correct", "wrong", "no_answer", None, "correct", None]
    assert [row.get("reward") for row in rows] == [1.0, 0.0, 0.0, None, 1.0, None]
    assert [row["parts"]["format"] for row in rows if "parts" in row] == [1.0, 1.0, 0.0, 0.0]
    assert "row 3: gold: missing" in output
    assert "row 5: not JSON" in output
    assert "4 completions, mean reward 0.5000: correct 2, wrong 1, no_answer 1; 2 bad rows" in output


def test_score_takes_rewards_and_template_from_a_recipe(tmp_path: Path, tiny_model: Path) -> None:
    """The toy's template asks for a box, so that a box is the right form."""
    recipe = toy_recipe(tiny_model, tmp_path / "run", rewards=[{"name": "format", "weight": 3.0}])
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"completion": "It is \\boxed{4}.", "gold": "4"}) + "\n")
    code, output = run_grpo("score", str(file), "--recipe", write_recipe(tmp_path / "recipe.yaml", recipe))
    assert code == 0, output
    assert json.loads(output.splitlines()[0])["reward"] == 3.0


def test_score_of_a_file_that_is_not_there() -> None:
    code, output = run_grpo("score", "nowhere.jsonl")
    assert code == EXIT_USER_ERROR
    assert output == "grpo: FILE=nowhere.jsonl: no such file; give a JSONL file of completions\n"


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

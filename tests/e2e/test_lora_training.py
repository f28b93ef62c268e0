"""Whole runs that train adapters: with either engine, killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from processes import run_grpo, start_grpo, wait_for, write_recipe
from toy import toy_recipe

pytestmark = pytest.mark.e2e
STEPS = 5


def lora_recipe(model: Path, run_dir: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    defaults = {"run": {"steps": STEPS}, "update": {"lr": 2e-2, "kl_weight": 0.01, "reference_every": 2}}
    recipe = toy_recipe(model, run_dir, **(defaults | sections))
    recipe["model"]["lora"] = {"rank": 8, "alpha": 16}
    return recipe


def rows(run_dir: Path) -> list[dict[str, Any]]:
    file = run_dir / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def learnt(run_dir: Path) -> list[dict[str, Any]]:
    timeless = ("time", "speed")
    return [{key: value for key, value in row.items() if not key.startswith(timeless)} for row in rows(run_dir)]


def test_a_killed_run_learns_what_an_uninterrupted_one_does(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", lora_recipe(tiny_model, tmp_path / "run"))
    whole = write_recipe(tmp_path / "whole.yaml", lora_recipe(tiny_model, tmp_path / "whole"))
    code, output = run_grpo("train", whole)
    assert code == 0, output
    trainer = start_grpo("train", recipe)
    wait_for(lambda: len(rows(tmp_path / "run")) > 3, 120, "three steps")
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.communicate()
    code, output = run_grpo("train", recipe)
    assert code == 0, output
    assert "going on after step" in output
    assert learnt(tmp_path / "run") == learnt(tmp_path / "whole")
    assert max(row["sync/gap_nats"] for row in learnt(tmp_path / "whole") if row["step"]) < 1e-3
    last = f"checkpoints/step_{STEPS:06d}"
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "run" / last / name).read_bytes() == (tmp_path / "whole" / last / name).read_bytes()
    code, output = run_grpo("train", recipe, f"run.steps={STEPS + 1}", "model.lora.rank=4")
    assert code == 2
    assert "model.lora.rank" in output


def test_with_vllm_engine_and_trainer_agree(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    recipe = lora_recipe(tiny_model, tmp_path / "run", run={"steps": 2}, rollout={"engine": "vllm"})
    code, output = run_grpo("train", write_recipe(tmp_path / "recipe.yaml", recipe))
    assert code == 0, output
    steps = [row for row in rows(tmp_path / "run") if row["step"]]
    assert len(steps) == 2
    assert max(row["sync/gap_nats"] for row in steps) < 1e-3
    assert max(row["gap/mean_nats"] for row in steps) < 1e-3

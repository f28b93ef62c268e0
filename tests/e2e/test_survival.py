"""A run that is killed, interrupted or out of disk leaves nothing behind and goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import alive, descendants, environment, run_grpo, start_grpo, wait_for, write_recipe
from toy import toy_recipe

from grpo.rows import read_rows

pytestmark = pytest.mark.e2e
STEPS = 6


def rows(run_dir: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    file = run_dir / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def learnt(run_dir: Path) -> list[dict[str, Any]]:
    """What a run's rows say of learning: everything but times."""
    timeless = ("time", "speed")
    return [{key: value for key, value in row.items() if not key.startswith(timeless)} for row in rows(run_dir)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    home = tmp_path_factory.mktemp("uninterrupted")
    recipe = write_recipe(home / "recipe.yaml", toy_recipe(tiny_model, home / "run", run={"steps": STEPS}))
    code, output = run_grpo("train", recipe)
    assert code == 0, output
    return home / "run"


@pytest.mark.parametrize("steps_before", [0, 3])
def test_kill_9_with_vllm_leaves_no_process_and_the_run_goes_on(
    tiny_model: Path, tmp_path: Path, steps_before: int
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    run_dir = tmp_path / "run"
    recipe = toy_recipe(tiny_model, run_dir, run={"steps": 400}, rollout={"engine": "vllm"})
    file = write_recipe(tmp_path / "recipe.yaml", recipe)
    trainer = start_grpo("train", file)
    wait_for(lambda: (run_dir / "logs" / "engine_0.log").exists(), 60, "the engine's start")
    wait_for(lambda: len(rows(run_dir)) > steps_before, 120, "the first steps")
    family = descendants(trainer.pid)
    assert any("vllm_server" in " ".join(one.cmdline()) for one in family)
    assert any("rewards.workers.zygote" in " ".join(one.cmdline()) for one in family)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.communicate()
    wait_for(lambda: not alive(family), 10, "the end of all processes that the trainer had started")

    done = max([row["step"] for row in rows(run_dir)], default=0)
    code, output = run_grpo("train", file, f"run.steps={done + 2}")
    assert code == 0, output
    assert [row["step"] for row in rows(run_dir)] == list(range(done + 3))


def test_a_killed_run_learns_what_an_uninterrupted_one_does(
    uninterrupted: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    file = write_recipe(tmp_path / "recipe.yaml", toy_recipe(tiny_model, run_dir, run={"steps": STEPS}))
    trainer = start_grpo("train", file)
    wait_for(lambda: len(rows(run_dir)) > 2, 60, "two steps")
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.communicate()
    code, output = run_grpo("train", file)
    assert code == 0, output
    assert learnt(run_dir) == learnt(uninterrupted)
    name = f"checkpoints/step_{STEPS:06d}/model/model.safetensors"
    assert (run_dir / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_killed_run_has_every_completion_once_in_whichever_part(
    uninterrupted: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Parts of some 8 KiB, a step or so, and checkpoints that are older than parts which are closed already."""
    run_dir = tmp_path / "run"
    settings = {"log": {"completions_part_mib": 0.008}, "checkpoint": {"every": 3}}
    file = write_recipe(tmp_path / "recipe.yaml", toy_recipe(tiny_model, run_dir, run={"steps": STEPS}) | settings)
    trainer = start_grpo("train", file)
    wait_for(lambda: len(rows(run_dir)) > STEPS - 1, 60, "all steps but the last")
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.communicate()
    code, output = run_grpo("train", file)
    assert code == 0, output
    assert "going on after step 3" in output
    assert len(list(run_dir.glob("completions_*.jsonl.gz"))) > 1
    found, expected = (
        [row | {"cpu_s": 0} for row in read_rows(folder / "completions.jsonl")] for folder in (run_dir, uninterrupted)
    )
    assert found == expected


def test_an_interrupt_says_how_to_go_on(tiny_model: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    file = write_recipe(tmp_path / "recipe.yaml", toy_recipe(tiny_model, run_dir, run={"steps": 400}))
    trainer = start_grpo("train", file)
    wait_for(lambda: len(rows(run_dir)) > 1, 60, "a step")
    family = descendants(trainer.pid)
    trainer.send_signal(signal.SIGINT)
    output, _ = trainer.communicate(timeout=30)
    assert trainer.returncode == 130
    assert "the same command goes on from the last checkpoint" in output
    assert "Traceback" not in output
    wait_for(lambda: not alive(family), 10, "the workers' end")


def test_a_damaged_checkpoint_is_passed_over(uninterrupted: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(uninterrupted, run_dir)
    newest = run_dir / "checkpoints" / f"step_{STEPS:06d}" / "trainer.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))
    recipe = (run_dir / "recipe.yaml").read_text().replace(str(uninterrupted), str(run_dir))
    (tmp_path / "recipe.yaml").write_text(recipe)
    (run_dir / "recipe.yaml").write_text(recipe)
    code, output = run_grpo("train", str(tmp_path / "recipe.yaml"))
    assert code == 0, output
    assert f"going on after step {STEPS - 1}" in output
    assert learnt(run_dir) == learnt(uninterrupted)


def test_a_disk_that_fills_up_costs_no_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: the trainer's state does not fit, its rows do."""
    run_dir = tmp_path / "run"
    file = write_recipe(tmp_path / "recipe.yaml", toy_recipe(tiny_model, run_dir, run={"steps": 1}))
    code, output = run_grpo("train", file)
    assert code == 0, output
    [first] = (run_dir / "checkpoints").iterdir()
    limit = (first / "trainer.pt").stat().st_size // 2

    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    full = subprocess.run(
        [sys.executable, "-m", "grpo", "train", file, "run.steps=2"],
        env=environment(),
        preexec_fn=set_limit,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert full.returncode == 2, full.stderr
    assert "the disk took no more" in full.stderr
    assert list((run_dir / "checkpoints").iterdir()) == [first]
    code, output = run_grpo("train", file, "run.steps=2")
    assert code == 0, output
    assert "going on after step 1" in output

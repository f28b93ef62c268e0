"""A run's rows and checkpoints, as a crash may leave them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_tokenizer
from toy import toy_recipe

from grpo.checkpoints.checkpoints import Checkpoints, list_checkpoints
from grpo.checkpoints.manifest import is_valid
from grpo.errors import UserError
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy, PolicySettings
from grpo.recipe.load import parse_recipe
from grpo.recipe.sections import CheckpointSection
from grpo.rollout.weight_sync.transport import transfer_folder
from grpo.rows import read_rows
from grpo.run.folder import RunFolder

WORLD = SoleWorld(torch.device("cpu"))


@pytest.fixture
def policy(tiny_model: Path) -> Policy:
    recipe = parse_recipe(toy_recipe(tiny_model, Path("run")), "toy")
    settings = PolicySettings(recipe.model, recipe.update, recipe.rollout, steps=9)
    return Policy(tiny_model, settings, WORLD, PhaseClock())


def checkpoints_in(folder: Path, keep: int) -> Checkpoints:
    return Checkpoints(folder, CheckpointSection(every=1, keep=keep), 9, tiny_tokenizer(), WORLD, PhaseClock())


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b'{"step": 1}\n12\n{"text": "x"}\n{"step": 2}\n{"step": 3, "t": "\xc3')
    assert [row["step"] for row in read_rows(tmp_path / "rows")] == [1, 2]


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path, tiny_model: Path) -> None:
    with RunFolder(tmp_path / "run", parse_recipe(toy_recipe(tiny_model, tmp_path / "run"), "toy")) as folder:
        folder.append("metrics.jsonl", [{"step": 1, "update/grad_norm": float("nan"), "update/lr": 0.5}])
    assert (
        tmp_path / "run" / "metrics.jsonl"
    ).read_text() == '{"step": 1, "update/grad_norm": null, "update/lr": 0.5}\n'


def test_rewinding_forgets_steps_and_a_restart_keeps_them_aside(tmp_path: Path, tiny_model: Path) -> None:
    with RunFolder(tmp_path / "run", parse_recipe(toy_recipe(tiny_model, tmp_path / "run"), "toy")) as folder:
        folder.append("metrics.jsonl", [{"step": step} for step in range(4)])
        folder.go_on(2)
        assert [row["step"] for row in read_rows(folder.path / "metrics.jsonl")] == [0, 1, 2]
        folder.go_on(0)
        assert not (folder.path / "metrics.jsonl").exists()
        assert [row["step"] for row in read_rows(folder.path / "metrics.before_restart.jsonl")] == [0, 1, 2]


def test_a_damaged_checkpoint_is_set_aside_and_never_outlives_a_whole_one(policy: Policy, tmp_path: Path) -> None:
    checkpoints = checkpoints_in(tmp_path, keep=1)
    checkpoints.save(policy, 1)
    damaged = tmp_path / "checkpoints" / "step_000006"
    (tmp_path / "checkpoints" / "step_000001").rename(tmp_path / "kept")
    checkpoints.save(policy, 6)
    (damaged / "trainer.pt").write_bytes(b"")
    (tmp_path / "kept").rename(tmp_path / "checkpoints" / "step_000001")
    with pytest.warns(UserWarning, match="step_000006 is damaged"):
        checkpoints.restore(policy)
    checkpoints.save(policy, 2)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step_000002"]
    assert is_valid(tmp_path / "checkpoints" / "step_000002")
    assert (tmp_path / "checkpoints" / "damaged_step_000006").is_dir()


def test_a_run_none_of_whose_checkpoints_is_whole_does_not_start_over(policy: Policy, tmp_path: Path) -> None:
    checkpoints = checkpoints_in(tmp_path, keep=2)
    (checkpoints.save(policy, 3) / "manifest.json").unlink()
    with pytest.raises(UserError, match="not one of step_000003 is whole"):
        checkpoints.restore(policy)


def test_folders_that_only_look_like_checkpoints_are_let_be(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step_000012_copy").mkdir(parents=True)
    checkpoints_in(tmp_path, keep=1).save(policy, 1)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step_000001"]
    assert (tmp_path / "checkpoints" / "step_000012_copy").is_dir()


def test_weights_that_fit_nowhere_are_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"weight sync: .* GiB of weights fit none of"):
        transfer_folder(1 << 60)

"""Going on from a checkpoint: the first rank alone reads it whole to verify it, and all ranks map the same one."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from ranks import on_two_ranks
from tiny import tiny_tokenizer

from grpo.checkpoints.checkpoints import Checkpoints, checkpoint_of
from grpo.checkpoints.manifest import is_valid
from grpo.checkpoints.row_ends import read_row_ends
from grpo.errors import UserError
from grpo.parallel.world import SoleWorld, World
from grpo.phases import PhaseClock
from grpo.recipe.sections import CheckpointSection

WORLD = SoleWorld(torch.device("cpu"))


class OneWeight:
    """A policy of a single weight, with its optimiser, that notes how its state came back."""

    def __init__(self) -> None:
        self.version = 0
        self.weight = torch.nn.Parameter(torch.zeros(4))
        self.optimiser = torch.optim.AdamW([self.weight], lr=0.1)
        self.was_mapped = False

    def learn(self) -> None:
        self.version += 1
        self.weight.grad = torch.ones(4) * self.version
        self.optimiser.step()

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")

    def export_adapters(self, folder: Path) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight.detach(), "optimiser": self.optimiser.state_dict(), "version": self.version}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.was_mapped = mapped_trainers() > 0
        self.version = state["version"]
        self.weight.data.copy_(state["weight"])
        self.optimiser.load_state_dict(state["optimiser"])


def mapped_trainers() -> int:
    """How often a trainer.pt stands in this process's memory map."""
    return Path("/proc/self/maps").read_text().count("trainer.pt")


def checkpoints_of(run_dir: Path, world: World) -> Checkpoints:
    return Checkpoints(run_dir, CheckpointSection(keep=9), 9, tiny_tokenizer(), world, PhaseClock())


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with rows, and with checkpoints of steps 1 and 2."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    policy = OneWeight()
    for step in (1, 2):
        policy.learn()
        with (run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
        checkpoints_of(run_dir, WORLD).save(policy, step)  # type: ignore[arg-type]
    return run_dir


def damage(run_dir: Path, step: int) -> None:
    file = checkpoint_of(run_dir, step) / "trainer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def restore(world: World, run_dirs: list[Path]) -> dict[str, Any]:
    """What going on does on this rank; each rank may see a folder of its own."""
    hashed = []
    real = hashlib.file_digest

    def counted(file: BinaryIO, digest: str) -> Any:
        hashed.append(Path(str(file.name)))
        return real(file, digest)

    hashlib.file_digest = counted  # type: ignore[assignment]
    policy = OneWeight()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            checkpoints_of(run_dirs[world.rank], world).restore(policy)  # type: ignore[arg-type]
        fault = None
    except UserError as error:
        fault = str(error)
    return {
        "step": policy.version,
        "weight": policy.weight.tolist(),
        "moments": policy.optimiser.state_dict()["state"][0]["exp_avg"].tolist() if policy.version else None,
        "was mapped": policy.was_mapped,
        "still mapped": mapped_trainers(),
        "hashed": sorted({f"{file.parent.name}/{file.name}" for file in hashed}),
        "warned": len(warned),
        "fault": fault,
    }


def test_the_first_rank_verifies_for_all(run_dir: Path, tmp_path: Path) -> None:
    first, second = on_two_ranks(tmp_path / "ranks", restore, [run_dir, run_dir])
    assert {"step_000002/trainer.pt", "step_000002/rows.json", "model/model.safetensors"} <= set(first.pop("hashed"))
    assert second.pop("hashed") == []
    assert first == second
    assert (first["step"], first["fault"]) == (2, None)
    # AdamW's first moment, with betas of 0.9: 0.1 x 1, then 0.9 x 0.1 + 0.1 x 2.
    assert first["moments"] == pytest.approx([0.29] * 4)


def test_a_checkpoint_is_mapped_and_let_go(run_dir: Path) -> None:
    """Ranks of a node then share its pages; and a checkpoint that is pruned gives its room on the disk back."""
    found = restore(WORLD, [run_dir])
    assert found["was mapped"]
    assert found["still mapped"] == 0


def test_all_ranks_take_the_one_before_a_damaged_one(run_dir: Path, tmp_path: Path) -> None:
    damage(run_dir, 2)
    first, second = on_two_ranks(tmp_path / "ranks", restore, [run_dir, run_dir])
    assert (first["step"], second["step"]) == (1, 1)
    assert (first["warned"], second["warned"]) == (1, 0)
    assert second["hashed"] == []
    assert (run_dir / "checkpoints" / "damaged_step_000002").is_dir()


def test_all_ranks_refuse_where_none_is_whole(run_dir: Path, tmp_path: Path) -> None:
    damage(run_dir, 1)
    damage(run_dir, 2)
    for found in on_two_ranks(tmp_path / "ranks", restore, [run_dir, run_dir]):
        assert "not one of step_000001, step_000002 is whole" in found["fault"]


def test_ranks_that_do_not_see_the_first_ones_disk_are_refused(run_dir: Path, tmp_path: Path) -> None:
    for found in on_two_ranks(tmp_path / "ranks", restore, [run_dir, tmp_path / "elsewhere"]):
        assert (
            "not every rank sees the first rank's step_000002; put run.dir on a disk that all share" in found["fault"]
        )


def test_a_new_run_has_none(tmp_path: Path) -> None:
    for found in on_two_ranks(tmp_path / "ranks", restore, [tmp_path / "run"] * 2):
        assert (found["step"], found["fault"]) == (0, None)


# Where rows ended


def test_each_checkpoint_knows_where_the_rows_ended_and_vouches_for_it(run_dir: Path) -> None:
    ends = [read_row_ends(checkpoint_of(run_dir, step)) for step in (1, 2)]
    row = len('{"step": 1}\n')
    assert ends == [{"metrics.jsonl": count * row, "completions.jsonl": 0, "evals.jsonl": 0} for count in (1, 2)]
    newest = checkpoint_of(run_dir, 2)
    assert is_valid(newest)
    shutil.copy(checkpoint_of(run_dir, 1) / "rows.json", newest / "rows.json")
    assert not is_valid(newest)


def test_a_checkpoint_from_before_rows_were_remembered_is_whole(run_dir: Path) -> None:
    newest = checkpoint_of(run_dir, 2)
    (newest / "rows.json").unlink()
    manifest = json.loads((newest / "manifest.json").read_text())
    del manifest["rows.json"]
    (newest / "manifest.json").write_text(json.dumps(manifest))
    assert restore(WORLD, [run_dir])["step"] == 2
    assert read_row_ends(newest) is None

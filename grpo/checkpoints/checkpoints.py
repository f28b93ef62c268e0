"""Checkpoints that are whole or not there at all.

One is written to a temporary folder, flushed, listed with hashes in a manifest, renamed into place, and only then
are older ones pruned. Inside:

* ``model/``: an ordinary Hugging Face folder with tokenizer;
* ``adapter/``, with LoRA: the adapters alone, as peft loads them;
* ``trainer.pt``: what is trained in fp32, optimiser, random state;
* ``rows.json``: where the run's row files ended;
* ``manifest.json``: the SHA-256 of every other file.

The first rank writes and verifies; the others are told which checkpoint it is. All ranks read ``trainer.pt`` through a
memory map, so that those of a node share one copy of it in the page cache.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from grpo.checkpoints.manifest import MANIFEST, flush_and_hash, flush_folder, is_valid
from grpo.checkpoints.room import explain_write_error
from grpo.checkpoints.row_ends import write_row_ends
from grpo.errors import UserError
from grpo.parallel.world import World
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy
from grpo.recipe.interval import is_due
from grpo.recipe.sections import CheckpointSection

TRAINER = "trainer.pt"


class Checkpoints:
    """The checkpoints of one run, in the folder ``checkpoints`` of the run's."""

    def __init__(
        self,
        run_dir: Path,
        settings: CheckpointSection,
        last_step: int,
        tokenizer: Any,
        world: World,
        clock: PhaseClock,
    ) -> None:
        self._run_dir = run_dir
        self._folder = checkpoints_folder(run_dir)
        self._settings = settings
        self._last_step = last_step
        self._tokenizer = tokenizer
        self._world = world
        self._clock = clock

    def save_if_due(self, policy: Policy, step: int) -> None:
        """Save after the last step, and every so many steps before it; the first rank writes, all wait for it."""
        if step == self._last_step or is_due(step, self._settings.every):
            if self._world.rank == 0:
                self.save(policy, step)
            self._world.barrier()

    def save(self, policy: Policy, step: int) -> Path:
        """Write the checkpoint of a step. A disk without room is a clear error and costs no older checkpoint."""
        with self._clock.phase("checkpoint"):
            final = checkpoint_of(self._run_dir, step)
            temporary = self._folder / f".writing_{final.name}"
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                self._write(policy, temporary)
            except (OSError, RuntimeError, SafetensorError) as error:
                shutil.rmtree(temporary, ignore_errors=True)
                raise explain_write_error(error, self._folder) from error
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            flush_folder(self._folder)
            self._prune()
            return final

    def restore(self, policy: Policy) -> int:
        """Put the newest valid checkpoint into the policy and return its step; 0 when there is none.

        One whose files do not match its manifest is set aside for the one before; if none is whole, that is an error.
        Only the first rank reads all files to tell; the others load what it found.
        """
        found, valid = self._world.broadcast(self._look() if self._world.rank == 0 else ([], None))
        if found and valid is None:
            raise UserError(
                f"checkpoints={self._folder}: not one of {', '.join(found)} is whole; remove them to start again from "
                "nothing, or set another run.dir"
            )
        if valid is not None:
            self._load(policy, self._folder / valid / TRAINER)
        return policy.version

    def _look(self) -> tuple[list[str], str | None]:
        """The names of all checkpoints, oldest first, and of the newest valid one; newer ones are set aside."""
        found = list_checkpoints(self._run_dir)
        valid = next((folder for folder in reversed(found) if is_valid(folder)), None)
        if valid is not None:
            _set_aside(found[found.index(valid) + 1 :])
        return [folder.name for folder in found], valid.name if valid else None

    def _load(self, policy: Policy, file: Path) -> None:
        if not all(self._world.gather(file.is_file())):
            raise UserError(
                f"checkpoints={self._folder}: not every rank sees the first rank's {file.parent.name}; put run.dir on "
                "a disk that all share"
            )
        state = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        if self._world.device.type == "cpu":
            state["optimiser"] = _copied(state["optimiser"])
        policy.load_state_dict(state)

    def _write(self, policy: Policy, folder: Path) -> None:
        policy.export(folder / "model")
        self._tokenizer.save_pretrained(folder / "model")
        policy.export_adapters(folder / "adapter")
        torch.save(policy.state_dict(), folder / TRAINER)
        write_row_ends(self._run_dir, folder)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        manifest = {str(file.relative_to(folder)): flush_and_hash(file) for file in files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        flush_and_hash(folder / MANIFEST)

    def _prune(self) -> None:
        for folder in list_checkpoints(self._run_dir)[: -self._settings.keep]:
            # What cannot be removed now is tried again after the next one.
            shutil.rmtree(folder, ignore_errors=True)


def list_checkpoints(run_dir: Path) -> list[Path]:
    """All checkpoints of a run, oldest first, whether valid or not."""
    found = checkpoints_folder(run_dir).glob("step_*")
    return sorted(file for file in found if re.fullmatch(r"step_\d{6,}", file.name))


def checkpoints_folder(run_dir: Path) -> Path:
    """Where a run's checkpoints are."""
    return run_dir / "checkpoints"


def checkpoint_of(run_dir: Path, step: int) -> Path:
    """The checkpoint of a step, whether it is there or not."""
    return checkpoints_folder(run_dir) / f"step_{step:06d}"


def _set_aside(damaged: Sequence[Path]) -> None:
    for folder in damaged:
        warnings.warn(f"checkpoint {folder} is damaged: set aside as damaged_{folder.name}", stacklevel=2)
        shutil.rmtree(folder.with_name(f"damaged_{folder.name}"), ignore_errors=True)
        folder.rename(folder.with_name(f"damaged_{folder.name}"))


def _copied(optimiser: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's state with tensors of its own.

    An optimiser on the CPU keeps the very tensors that it is given. If they were the file's, they would hold its room
    on the disk after it is pruned, and a file that is cut short would end the process.
    """
    of_parameters = {
        number: {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()}
        for number, state in optimiser["state"].items()
    }
    return optimiser | {"state": of_parameters}

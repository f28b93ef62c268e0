"""Checkpoints that are whole or not there at all.

One is written to a temporary folder, flushed, listed with hashes in a manifest, renamed into place, and only then
are older ones pruned. Inside: ``model/`` (an ordinary Hugging Face folder with tokenizer), ``adapter/`` (with LoRA: the
adapters alone, as peft loads them), ``trainer.pt`` (what is trained in fp32, optimiser, random state) and
``manifest.json``.
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
from grpo.errors import UserError
from grpo.parallel.world import World, ranks_agree
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy
from grpo.recipe.interval import is_due
from grpo.recipe.sections import CheckpointSection


class Checkpoints:
    """The checkpoints of one run, newest last."""

    def __init__(
        self,
        folder: Path,
        settings: CheckpointSection,
        last_step: int,
        tokenizer: Any,
        world: World,
        clock: PhaseClock,
    ) -> None:
        self._folder = folder
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
            final = self._folder / f"step_{step:06d}"
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
        """
        found = list_checkpoints(self._folder)
        valid = next((folder for folder in reversed(found) if is_valid(folder)), None)
        if found and valid is None:
            raise UserError(
                f"checkpoints={self._folder}: not one of {', '.join(folder.name for folder in found)} is whole; remove "
                "them to start again from nothing, or set another run.dir"
            )
        if valid is not None:
            state = torch.load(valid / "trainer.pt", map_location="cpu", weights_only=True)
            policy.load_state_dict(state)
        if not ranks_agree(self._world, policy.version):
            raise UserError(
                f"checkpoints={self._folder}: the ranks see different checkpoints; put run.dir on a disk that all share"
            )
        if self._world.rank == 0:
            self._set_aside(found[found.index(valid) + 1 :] if valid else [])
        return policy.version

    def _set_aside(self, damaged: Sequence[Path]) -> None:
        for folder in damaged:
            warnings.warn(f"checkpoint {folder} is damaged: set aside as damaged_{folder.name}", stacklevel=2)
            shutil.rmtree(folder.with_name(f"damaged_{folder.name}"), ignore_errors=True)
            folder.rename(folder.with_name(f"damaged_{folder.name}"))

    def _write(self, policy: Policy, folder: Path) -> None:
        policy.export(folder / "model")
        self._tokenizer.save_pretrained(folder / "model")
        policy.export_adapters(folder / "adapter")
        torch.save(policy.state_dict(), folder / "trainer.pt")
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        manifest = {str(file.relative_to(folder)): flush_and_hash(file) for file in files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        flush_and_hash(folder / MANIFEST)

    def _prune(self) -> None:
        for folder in list_checkpoints(self._folder)[: -self._settings.keep]:
            # What cannot be removed now is tried again after the next one.
            shutil.rmtree(folder, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, oldest first, whether valid or not."""
    return sorted(file for file in folder.glob("step_*") if re.fullmatch(r"step_\d{6,}", file.name))

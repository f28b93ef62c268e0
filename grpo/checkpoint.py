"""Checkpoints that are whole or not there at all.

One is written to a temporary folder, flushed, listed with hashes in a manifest, renamed into place, and only then
are older ones pruned. Inside: ``model/`` (an ordinary Hugging Face folder with tokenizer), ``adapter/`` (with LoRA: the
adapters alone, as peft loads them), ``trainer.pt`` (what is trained in fp32, optimiser, random state) and
``manifest.json``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from grpo.adapters import num_adapter_weights
from grpo.config import CheckpointSection
from grpo.errors import UserError
from grpo.meter import Meter
from grpo.models import num_parameters
from grpo.policy import Policy, PolicySettings
from grpo.schedule import is_due
from grpo.world import World, replicas_agree

MANIFEST = "manifest.json"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Checkpoints:
    """The checkpoints of one run, newest last."""

    def __init__(
        self,
        folder: Path,
        settings: CheckpointSection,
        last_step: int,
        tokenizer: Any,
        world: World,
        meter: Meter,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._last_step = last_step
        self._tokenizer = tokenizer
        self._world = world
        self._meter = meter

    def save_if_due(self, policy: Policy, step: int) -> None:
        """Save after the last step, and every so many steps before it; the first rank writes, all wait for it."""
        if step == self._last_step or is_due(step, self._settings.every):
            if self._world.rank == 0:
                self.save(policy, step)
            self._world.barrier()

    def save(self, policy: Policy, step: int) -> Path:
        """Write the checkpoint of a step. A disk without room is a clear error and costs no older checkpoint."""
        with self._meter.phase("checkpoint"):
            final = self._folder / f"step_{step:06d}"
            temporary = self._folder / f".writing_{final.name}"
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                self._write(policy, temporary)
            except (OSError, RuntimeError, SafetensorError) as error:
                shutil.rmtree(temporary, ignore_errors=True)
                raise _explained(error, self._folder) from error
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            _flush_folder(self._folder)
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
        if not replicas_agree(self._world, policy.version):
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
        manifest = {str(file.relative_to(folder)): _flush_and_hash(file) for file in files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _flush_and_hash(folder / MANIFEST)

    def _prune(self) -> None:
        for folder in list_checkpoints(self._folder)[: -self._settings.keep]:
            # What cannot be removed now is tried again after the next one.
            shutil.rmtree(folder, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a run, oldest first, whether valid or not."""
    return sorted(file for file in folder.glob("step_*") if re.fullmatch(r"step_\d{6,}", file.name))


def is_valid(folder: Path) -> bool:
    """Whether every file that the manifest lists is there with the same hash."""
    try:
        manifest: dict[str, str] = json.loads((folder / MANIFEST).read_text())
        return bool(manifest) and all(_hash(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False


def checkpoint_bytes(folder: Path, settings: PolicySettings) -> int:
    """What one checkpoint of a model's training takes. Raises UserError where the model has not what is to be adapted.

    The exported model; the fp32 weights and two fp32 moments of what is trained; adapters a second time, on their own;
    and a reference that moves, in the type that it is held in.
    """
    exported = num_parameters(folder)
    lora = settings.model.lora
    trained = num_adapter_weights(folder, lora) if lora else exported
    needed = exported * torch.finfo(getattr(torch, settings.rollout.dtype)).bits // 8 + 12 * trained
    if lora:
        needed += 4 * trained
    if settings.update.reference_every:
        needed += trained * (4 if lora or settings.model.compute == "fp32" else 2)
    return needed


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise UserError when the disk under `folder` cannot take `needed_bytes` more."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise UserError(
            f"run.dir={folder}: {free / 2**30:.1f} GiB free, and the checkpoints need {needed_bytes / 2**30:.1f} "
            "GiB; free some room, choose another disk, or lower checkpoint.keep"
        )


def _explained(error: Exception, folder: Path) -> Exception:
    if isinstance(error, OSError):
        full = error.errno in _NO_ROOM
    else:
        # torch and safetensors write from compiled code and tell the reason in words only.
        full = any(name in str(error) for name in ("PytorchStreamWriter", "inline_container")) or any(
            f"os error {code}" in str(error) for code in _NO_ROOM
        )
    if full:
        return UserError(
            f"checkpoint={folder}: the disk took no more ({error}); free some room and start the run again: it "
            "goes on from the checkpoint before"
        )
    return error


def _hash(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _flush_and_hash(file: Path) -> str:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""How much disk checkpoints take, and what to say when there is none left."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import torch

from grpo.errors import UserError
from grpo.model.files import num_parameters
from grpo.model.lora import num_adapter_weights
from grpo.policy.policy import PolicySettings

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def checkpoint_bytes(folder: Path, settings: PolicySettings) -> int:
    """How many bytes one checkpoint of a run takes.

    That is the exported model in the engine's type; 12 bytes (fp32 weight and two fp32 moments) for each weight that is
    trained; with LoRA another 4 for each of them, for the adapters' own folder; and, with `update.reference_every`, the
    reference in the type that it is held in. Raises UserError where the model has no layer that LoRA is to adapt.
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


def explain_write_error(error: Exception, folder: Path) -> Exception:
    """What to raise when a checkpoint could not be written: a UserError where the disk is full, else `error`."""
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

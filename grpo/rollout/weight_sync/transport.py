"""The folder in which weights travel from the trainer to the engine."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import psutil

from grpo.errors import UserError

_FOLDER_PREFIX = "grpo-weights-"


ORPHAN_AGE_S = 600.0


ROOM_FACTOR = 1.2


def _is_orphan(folder: Path) -> bool:
    """Nobody's any more: its writer is gone and, as other containers' processes cannot be seen, long so."""
    writer = int(folder.name.removeprefix(_FOLDER_PREFIX).split("-")[0])
    try:
        return not psutil.pid_exists(writer) and time.time() - folder.stat().st_mtime > ORPHAN_AGE_S
    except OSError:
        return False


def transfer_folder(needed_bytes: int) -> Path:
    """A new folder for weights on their way: in shared memory where they fit, else where temporary files go.

    Folders of processes that were killed while they wrote are removed first. Raises UserError where nothing has room.
    """
    places = [place for place in (Path("/dev/shm"), Path(tempfile.gettempdir())) if place.is_dir()]
    for place in places:
        for left in place.glob(f"{_FOLDER_PREFIX}*-*"):
            if _is_orphan(left):
                shutil.rmtree(left, ignore_errors=True)
        if shutil.disk_usage(place).free > ROOM_FACTOR * needed_bytes:
            return Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-", dir=place))
    raise UserError(
        f"weight sync: {needed_bytes / 2**30:.2f} GiB of weights fit none of {', '.join(map(str, places))}; free "
        "some room, give the container more shared memory, or set TMPDIR"
    )

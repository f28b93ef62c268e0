"""Weights on their way to the engines of a node: one rank writes a folder, every rank's engine reads it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import psutil

from grpo.errors import SyncError, UserError
from grpo.parallel.world import World

Result = TypeVar("Result")

ORPHAN_AGE_S = 600.0
"""Since when nothing has been written to a folder whose writer is gone, before it is removed."""
CLOCK_SLACK_S = 2.0
"""How far the time at which a process began, which counts from the machine's start, may be off a file's time."""
ROOM_FACTOR = 1.2
"""Room that is asked for, as a multiple of what the tensors take."""
_NAME = "grpo-weights-{pid}-{promised_bytes}-"
_PARSED_NAME = re.compile(r"grpo-weights-(?P<pid>\d+)-(?P<promised_bytes>\d+)-\w+")


def transfer(world: World, num_bytes: int, write: Callable[[Path], None], load: Callable[[Path], None]) -> None:
    """`write` the weights, of `num_bytes`, into a folder on the first rank of this node, and `load` it on all of them.

    Every rank of the node takes part. The folder is gone afterwards, whatever happened. Where one rank fails all of
    them raise: the error itself on that one, SyncError on the others.
    """
    with ExitStack() as stack:

        def write_folder() -> Path | None:
            if world.local_rank > 0:
                return None
            folder = transfer_folder(num_bytes)
            stack.callback(shutil.rmtree, folder)
            write(folder)
            return folder

        folder = _on_every_rank(world, write_folder)[0]
        assert folder is not None
        _on_every_rank(world, lambda: load(folder))


def _on_every_rank(world: World, action: Callable[[], Result]) -> list[Result | None]:
    """What `action` gave on each rank of this node, once it has ended on all of them."""
    result, error = None, None
    try:
        result = action()
    except Exception as raised:
        error = raised
    told = None if error is None else f"{type(error).__name__}: {error}"
    outcomes = world.gather_on_node((result, told))
    if error is not None:
        raise error
    for local_rank, (_, fault) in enumerate(outcomes):
        if fault is not None:
            raise SyncError(f"weight sync: it failed on rank {local_rank} of this node: {fault}")
    return [one for one, _ in outcomes]


def transfer_folder(num_bytes: int, places: Sequence[Path] | None = None) -> Path:
    """A new folder for weights on their way: in shared memory where they fit, else where temporary files go.

    The folder's name promises it its room: who asks next, in whatever process, counts what is promised and not yet
    written as taken. Folders of processes that were killed while they wrote are removed first. Raises UserError where
    nothing has room.
    """
    wanted = int(ROOM_FACTOR * num_bytes)
    places = [place for place in places or (Path("/dev/shm"), Path(tempfile.gettempdir())) if place.is_dir()]
    for place in places:
        with _locked(place):
            _remove_orphans(place)
            if shutil.disk_usage(place).free - _num_promised(place) > wanted:
                prefix = _NAME.format(pid=os.getpid(), promised_bytes=wanted)
                return Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    raise UserError(
        f"weight sync: {num_bytes / 2**30:.2f} GiB of weights fit none of {', '.join(map(str, places))}"
        f"{_promised_folders(places)}; free some room, give the container more shared memory, or set TMPDIR"
    )


def _promised_folders(places: Sequence[Path]) -> str:
    """In words: the folders that hold room there, which may be left over from runs of other containers."""
    found = [
        f"{folder} ({promised / 2**30:.2f} GiB)" for place in places for folder, _, promised in sorted(_folders(place))
    ]
    return f", where room is promised to {', '.join(found)}; remove those whose run has ended" if found else ""


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """One process at a time, of all that lock the same folder. A file system without such locks is not locked."""
    handle = os.open(place, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _folders(place: Path) -> Iterator[tuple[Path, int, int]]:
    """Every folder of weights with its writer's process id and the bytes that it was promised."""
    for folder in place.iterdir():
        if name := _PARSED_NAME.fullmatch(folder.name):
            yield folder, int(name["pid"]), int(name["promised_bytes"])


def _num_promised(place: Path) -> int:
    """Bytes that are promised to folders and not written yet."""
    return sum(max(0, promised - _num_written(folder)) for folder, _, promised in _folders(place))


def _num_written(folder: Path) -> int:
    """Bytes in a folder, which its own process may be removing."""
    total = 0
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            total += file.stat().st_size
    return total


def _remove_orphans(place: Path) -> None:
    for folder, pid, _ in _folders(place):
        if _is_orphan(folder, pid):
            shutil.rmtree(folder, ignore_errors=True)


def _is_orphan(folder: Path, pid: int) -> bool:
    """Nobody's any more: its writer is gone and, as other containers' processes cannot be seen, long so."""
    try:
        written = folder.stat().st_mtime
    except OSError:
        return False
    return time.time() - written > ORPHAN_AGE_S and not _may_be_writer(pid, written)


def _may_be_writer(pid: int, written: float) -> bool:
    """Whether a process of this number is there that had begun when the folder was last written to.

    One that began later has only the number of the writer, as in a container that was started again.
    """
    try:
        return bool(psutil.Process(pid).create_time() <= written + CLOCK_SLACK_S)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True

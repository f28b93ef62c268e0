"""Closing parts of the completions: renamed at once, compressed in the background, the oldest removed in time."""

from __future__ import annotations

import gzip
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from grpo.checkpoints.manifest import flush_file, flush_folder
from grpo.rows import ClosedPart, closed_parts

_CHUNK_BYTES = 2**20


class Closer:
    """Turns the open part of a run's completions into closed ones, and keeps these within `keep_gib`.

    Compression runs in a thread of its own, since zlib lets other threads work meanwhile. A disk that is full, or any
    other failure to compress, leaves the part as it is, which readers understand as well.
    """

    def __init__(self, open_file: Path, keep_gib: float | None) -> None:
        self._open_file = open_file
        self._keep_bytes = None if keep_gib is None else keep_gib * 2**30
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="completions")
        self._at_work: list[Future[None]] = []

    def close_part(self, last_step: int) -> None:
        """Close the open part, whose last row is of `last_step`."""
        self.wait()
        name = f"{self._open_file.stem}_{last_step:06d}{self._open_file.suffix}"
        self._open_file.rename(self._open_file.with_name(name))
        self._at_work.append(self._thread.submit(self._tidy))

    def wait(self) -> None:
        """Wait for the thread, and warn where it could not do its work."""
        while self._at_work:
            if error := self._at_work.pop().exception():
                warnings.warn(f"{self._open_file.parent}: a closed part stays as it is: {error}", stacklevel=2)

    def remove_leftovers(self) -> None:
        """Remove what a run that was killed had begun to write; only for the one who writes in the folder."""
        for file in self._open_file.parent.glob(".*.jsonl*.writing"):
            file.unlink()

    def close(self) -> None:
        """Wait for the thread, and end it."""
        self.wait()
        self._thread.shutdown()

    def _tidy(self) -> None:
        """Compress every part that is not yet (a run that was killed may have left some), then remove old ones."""
        for part in closed_parts(self._open_file):
            if part.plain.exists():
                _compress(part)
        self._remove_oldest()

    def _remove_oldest(self) -> None:
        if self._keep_bytes is None:
            return
        parts = [(part.plain, part.compressed) for part in closed_parts(self._open_file)]
        sizes = [sum(file.stat().st_size for file in files if file.exists()) for files in parts]
        while parts and sum(sizes) > self._keep_bytes:
            for file in parts.pop(0):
                file.unlink(missing_ok=True)
            sizes.pop(0)


def _compress(part: ClosedPart) -> None:
    """Write the compressed file whole, rename it into place, and only then remove the plain one.

    Each is on the disk before the next is done, so that a power cut leaves one of the two files whole.
    """
    temporary = part.plain.with_name(f".{part.compressed.name}.writing")
    try:
        with part.plain.open("rb") as source, gzip.open(temporary, "wb", compresslevel=6) as target:
            shutil.copyfileobj(source, target, _CHUNK_BYTES)
        flush_file(temporary)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(part.compressed)
    flush_folder(part.compressed.parent)
    part.plain.unlink()

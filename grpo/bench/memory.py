"""How much memory was needed at the most: by an update in this process, and by a process with all its children."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil
import torch

WEIGHTS_ON_THEIR_WAY = "/dev/shm/grpo-weights-{pid}-*"
"""Files of the weight sync: memory that belongs to no process."""


class Gauge(Protocol):
    """The peak above what is there at the start, in bytes; None where the system does not tell."""

    def start(self) -> None: ...

    def above(self) -> int | None: ...


class ProcessGauge:
    """Resident memory, by Linux' own high-water mark (VmHWM), which `start` sets back to what is resident."""

    def __init__(self) -> None:
        self._before: int | None = None

    def start(self) -> None:
        give_back()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status_bytes("VmRSS")
        except OSError:
            self._before = None

    def above(self) -> int | None:
        return None if self._before is None else max(0, _status_bytes("VmHWM") - self._before)


class CudaGauge:
    """Memory of this process's tensors, by torch's allocator."""

    def __init__(self) -> None:
        self._before = 0

    def start(self) -> None:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._before = torch.cuda.memory_allocated()

    def above(self) -> int | None:
        return torch.cuda.max_memory_allocated() - self._before


def make_gauge(device: torch.device) -> Gauge:
    return CudaGauge() if device.type == "cuda" else ProcessGauge()


def give_back() -> None:
    """Hand freed memory back to the system, so that what is resident is what is in use."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class TreePeak:
    """The most that a process and all that it started held at once, shared pages counted once (PSS).

    Weights on their way to an engine lie in shared memory and are added: a reader that maps them counts them again.

    To count shared pages once, the system goes through all pages of a process and holds it up meanwhile. So that is
    done only when the processes hold more than ever, shared pages counted more than once, which costs nothing to know.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._most_resident = 0

    def look(self, pid: int) -> None:
        """Called every so often."""
        try:
            process = psutil.Process(pid)
            tree = [process, *process.children(recursive=True)]
            on_their_way = sum(_shared_bytes(one.pid) for one in tree)
            resident = on_their_way + sum(map(_resident_bytes, tree))
            if resident <= self._most_resident:
                return
            self._most_resident = resident
            total = on_their_way + sum(_pss_bytes(one.pid) for one in tree)
        except (OSError, psutil.Error):
            return
        self.peak_bytes = max(self.peak_bytes or 0, total)


Look = Callable[[int], None]


def _resident_bytes(process: psutil.Process) -> int:
    """0 for a process that has just ended."""
    try:
        resident: int = process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return resident


def _pss_bytes(pid: int) -> int:
    """0 for a process that has just ended. Raises OSError where the system has no such file at all."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        if not Path("/proc/self/smaps_rollup").exists():
            raise OSError("no smaps_rollup") from None
        return 0
    return _kilobytes(text, "Pss")


def _shared_bytes(pid: int) -> int:
    total = 0
    pattern = Path(WEIGHTS_ON_THEIR_WAY.format(pid=pid))
    for folder in pattern.parent.glob(pattern.name):
        for file in folder.glob("*"):
            with contextlib.suppress(OSError):
                total += file.stat().st_blocks * 512
    return total


def _status_bytes(name: str) -> int:
    return _kilobytes(Path("/proc/self/status").read_text(), name)


def _kilobytes(text: str, name: str) -> int:
    """The value of a line such as ``VmRSS:   1234 kB``, in bytes."""
    [line] = [line for line in text.splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024

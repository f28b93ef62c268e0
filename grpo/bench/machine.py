"""What a figure was measured on, what disturbs it there, and how much memory was needed at the most."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import re
from pathlib import Path
from typing import Any

import psutil
import torch

from grpo.run.environment import environment

BUSY_LOAD = 0.5


def describe_machine() -> dict[str, Any]:
    """Processor, cores and memory; versions and commit as every run records them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu_name(), "cores": cores, "memory_bytes": psutil.virtual_memory().total, **environment()}


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def warnings(on_cpu: bool) -> list[str]:
    """One line for each thing that disturbs a measurement."""
    found = []
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        found.append(f"the machine is busy (load {load:.2f}): the figures below are worth little")
    if on_cpu and os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        found.append("OMP_WAIT_POLICY is not PASSIVE: waiting threads take the cores from working ones")
    return found


class UpdatePeak:
    """The most that this process holds above what it holds at `start`, in bytes; None where the system does not tell.

    On a GPU that is the memory of tensors, by torch's allocator; on a CPU it is resident memory, of which Linux keeps
    the high-water mark (VmHWM).
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._before: int | None = None

    def start(self) -> None:
        gc.collect()
        if self._on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        with contextlib.suppress(OSError, AttributeError):
            # What was freed goes back to the system, so that what is resident is what is in use.
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            # This sets the mark back to what is resident.
            Path("/proc/self/clear_refs").write_text("5")
            self._before = psutil.Process().memory_info().rss

    def above(self) -> int | None:
        if self._before is None:
            return None
        if self._on_gpu:
            return torch.cuda.max_memory_allocated() - self._before
        [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return max(0, int(kilobytes) * 1024 - self._before)


class TreePeak:
    """The most that a process and all that it started held at once, shared pages counted once (PSS), with what came
    to lie in shared memory meanwhile: weights on their way belong to no process. None where the system does not tell.

    To count shared pages once, the system goes through all pages of a process and holds it up meanwhile. So that is
    done only when the processes hold more than ever, shared pages counted more than once, which costs nothing to know.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._most_resident = 0
        self._shared_before = _shared_bytes()

    def look(self, pid: int) -> None:
        """Called every so often."""
        with contextlib.suppress(psutil.Error, AttributeError):
            process = psutil.Process(pid)
            tree = [process, *process.children(recursive=True)]
            shared = max(0, _shared_bytes() - self._shared_before)
            resident = shared + sum(_held(one, "memory_info", "rss") for one in tree)
            if resident > self._most_resident:
                total = shared + sum(_held(one, "memory_full_info", "pss") for one in tree)
                self._most_resident, self.peak_bytes = resident, max(self.peak_bytes or 0, total)


def _held(process: psutil.Process, question: str, kind: str) -> int:
    """Bytes; 0 for a process that has just ended."""
    try:
        return int(getattr(getattr(process, question)(), kind))
    except psutil.NoSuchProcess:
        return 0


def _shared_bytes() -> int:
    return int(psutil.disk_usage("/dev/shm").used) if Path("/dev/shm").is_dir() else 0

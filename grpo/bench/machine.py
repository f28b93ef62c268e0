"""What a figure was measured on, and what about it would make a figure worthless."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

from grpo.run.environment import environment

BUSY_LOAD = 0.5


def describe_machine() -> dict[str, Any]:
    """Processor, cores and memory; versions and commit as every run records them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu_name(), "cores": cores, "memory_bytes": _memory_bytes(), **environment()}


def cpu_name() -> str:
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


def _memory_bytes() -> int | None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None

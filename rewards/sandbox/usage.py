"""What a process has used so far, as the kernel counts it. All figures are 0 when the process has ended."""

from __future__ import annotations

import os
import time
from pathlib import Path


class ProcessUsage:
    """The CPU, threads and waiting of the process with that id."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_s(self) -> float:
        """CPU seconds of all its threads."""
        try:
            return time.clock_gettime(_cpu_clock(self._pid))
        except OSError:
            return 0.0

    def num_threads(self) -> int:
        """The threads that it has now."""
        try:
            return os.stat(f"/proc/{self._pid}/task").st_nlink - 2
        except OSError:
            return 0

    def queued_s(self) -> float:
        """Seconds that its threads were ready to run and waited for a CPU, as they do on a busy machine."""
        tasks = Path(f"/proc/{self._pid}/task")
        try:
            return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks.iterdir()) / 1e9
        except OSError:
            return 0.0


def _cpu_clock(pid: int) -> int:
    """The clock id of a process' CPU time, as the C library's clock_getcpuclockid makes it (CPUCLOCK_SCHED is 2)."""
    return (~pid << 3) | 2

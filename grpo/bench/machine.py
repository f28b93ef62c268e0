"""What a figure was measured on: the machine, what disturbs it, and how fast it multiplies the model's own matrices."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.benchmark import Timer

from grpo.model.logprobs import CHUNK_TOKENS
from grpo.run.folder import environment

BUSY_LOAD = 0.5
_RUN_S = 0.05
"""After a warm-up each product is made again and again for so long, once at least; the median counts."""

Matrix = tuple[int, int, int]
"""Outputs, inputs, and how many of that shape there are."""


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


def matmul_rates(matrices: Sequence[Matrix], rows: int, head_rows: int, device: torch.device) -> dict[str, float]:
    """FLOP/s by type, each shape as often as the model has it.

    `rows` are the tokens of a micro-batch, `head_rows` those that meet the last of the matrices, the output head.
    """
    *body, head = matrices
    work = [(rows, one) for one in body] + [(min(head_rows, CHUNK_TOKENS), head)]
    flop = sum(6 * num * outputs * inputs * count for num, (outputs, inputs, count) in work)
    with torch.no_grad():
        return {
            name: flop / sum(matrix[2] * _seconds(num, matrix, dtype, device) for num, matrix in work)
            for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
        }


def _seconds(rows: int, matrix: Matrix, dtype: torch.dtype, device: torch.device) -> float:
    """Of a matrix's three products in an update: forward, and backward to its inputs and to its weights."""
    outputs, inputs, _ = matrix
    sizes = {"x": (rows, inputs), "weight": (outputs, inputs), "grad": (rows, outputs)}
    given = {name: torch.randn(size, device=device).to(dtype) for name, size in sizes.items()}
    timers = [
        Timer(product, globals=given, num_threads=torch.get_num_threads())
        for product in ("x @ weight.T", "grad @ weight", "grad.T @ x")
    ]
    return sum(timer.blocked_autorange(min_run_time=_RUN_S).median for timer in timers)

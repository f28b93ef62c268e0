"""How fast this machine multiplies the model's own matrices: what an update is held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.parallel.world import join_world

_REPEATS = 3
_HEAD_ROWS = 512


@dataclass(frozen=True)
class MatmulJob:
    device: str
    matrices: tuple[tuple[int, int, int], ...]
    """Outputs, inputs and number of each shape, the output head last."""
    rows: int
    """Tokens of a micro-batch."""
    head_rows: int


class MatmulRate:
    """The three products of every matrix in an update: forward, and backward to its inputs and to its weights."""

    def __init__(self, job: MatmulJob) -> None:
        self._device = join_world(job.device).device
        *body, (outputs, inputs, _) = job.matrices
        self._shapes = [(job.rows, *shape) for shape in body]
        self._shapes.append((min(job.head_rows, _HEAD_ROWS), outputs, inputs, 1))

    def rates(self) -> dict[str, float]:
        """FLOP/s by type, each shape as often as the model has it."""
        with torch.no_grad():
            return {name: self._rate(dtype) for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))}

    def _rate(self, dtype: torch.dtype) -> float:
        seconds = sum(
            count * self._seconds(rows, outputs, inputs, dtype) for rows, outputs, inputs, count in self._shapes
        )
        return sum(6 * rows * outputs * inputs * count for rows, outputs, inputs, count in self._shapes) / seconds

    def _seconds(self, rows: int, outputs: int, inputs: int, dtype: torch.dtype) -> float:
        random = torch.Generator(device=self._device).manual_seed(0)
        x, weight, grad = (
            torch.randn(size, generator=random, device=self._device).to(dtype)
            for size in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        products: list[Callable[[], Tensor]] = [lambda: x @ weight.T, lambda: grad @ weight, lambda: grad.T @ x]
        return sum(self._median(product) for product in products)

    def _median(self, product: Callable[[], Tensor]) -> float:
        product()
        return statistics.median(self._time(product) for _ in range(_REPEATS))

    def _time(self, product: Callable[[], Tensor]) -> float:
        self._wait()
        began = time.perf_counter()
        product()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

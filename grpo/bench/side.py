"""One way to make an update, timed phase by phase: what the ways to be compared have in common."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from grpo.batching.micro_batches import make_batch
from grpo.bench.arithmetic import Work, body_matrices, flops, model_shape
from grpo.bench.memory import make_gauge
from grpo.bench.work import FixedGroup, credited_groups, longest
from grpo.parallel.world import join_world
from grpo.policy.policy import PolicySettings
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection
from grpo.records import Batch

LR = 1e-6


@dataclass(frozen=True)
class UpdateJob:
    """An update to make again and again, always on the same rollouts."""

    folder: Path
    groups: tuple[FixedGroup, ...]
    device: str
    compute: str
    gradient_checkpointing: bool
    budget: int
    max_new_tokens: int
    correct_sampler: bool = False
    compile: bool = False
    lora_rank: int | None = None

    def settings(self) -> PolicySettings:
        """As a recipe would say it: DAPO's objective, and where asked TRL's correction for the engine's log-probs."""
        correction: dict[str, Any] = {}
        if self.correct_sampler:
            correction = {"correction": "sequence_mask", "correction_options": {"low": 0.0, "high": 3.0}}
        return PolicySettings(
            model=ModelSection.model_validate(
                {
                    "path": str(self.folder),
                    "compute": self.compute,
                    "gradient_checkpointing": self.gradient_checkpointing,
                    "compile": self.compile,
                    "lora": {"rank": self.lora_rank, "alpha": 2 * self.lora_rank} if self.lora_rank else None,
                }
            ),
            update=UpdateSection(lr=LR, tokens_per_micro_batch=self.budget, **correction),
            rollout=RolloutSection(
                prompts_per_step=len(self.groups),
                group_size=len(self.groups[0].completions),
                max_new_tokens=self.max_new_tokens,
                # As TRL's engine.
                max_parallel=len(self.groups) * len(self.groups[0].completions),
                eager=False,
            ),
            steps=10**6,
        )

    def batch(self, settings: UpdateSection) -> Batch:
        """Made anew for every update, as in a run."""
        return make_batch(credited_groups(self.groups, settings), settings, self.max_new_tokens)


class Clock:
    """Adds up seconds by phase. Work that a device has not done yet is waited for."""

    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.taken_s: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        self._wait()
        return time.perf_counter()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = self.now()
            try:
                return function(*arguments, **named)
            finally:
                self.taken_s[name] += self.now() - start

        return call

    @contextlib.contextmanager
    def watching_backward(self) -> Iterator[None]:
        """Inside, every backward pass counts as ``backward``, whoever calls it."""
        plain = torch.autograd.backward
        torch.autograd.backward = self.timed("backward", plain)
        try:
            yield
        finally:
            torch.autograd.backward = plain


class Side(ABC):
    """The weights, the optimiser and the rollouts are there; `update` is the whole of one update.

    What implements it calls `stepping` once in every update, when only the optimiser's step is left.
    """

    def __init__(self, job: UpdateJob) -> None:
        self.job = job
        self.device = join_world(job.device).device
        self.clock = Clock(self.device)
        self._gauge = make_gauge(self.device)
        self._peak: int | None = None
        self.loss = 0.0
        """Of the last update: minus the mean of advantage x log-prob over all completion tokens."""
        self.grad_norm = 0.0

    @abstractmethod
    def update(self) -> None:
        """Forward and backward of all rollouts and one step of the optimiser."""

    @abstractmethod
    def model(self) -> Any:
        """What is trained, as transformers has it."""

    @abstractmethod
    def work(self) -> Work:
        """What the model computes in one update."""

    @abstractmethod
    def layout(self) -> str:
        """How the rollouts are laid out, in a few words."""

    def warm_up(self) -> dict[str, Any]:
        """The first update, which is not timed, and what there is to know of this side."""
        self.update()
        shape = model_shape(self.model())
        on_gpu = self.device.type == "cuda"
        return {
            "loss": self.loss,
            "grad_norm": self.grad_norm,
            "layout": self.layout(),
            "flops": flops(shape, self.work()),
            "work": asdict(self.work()),
            "model_shape": asdict(shape),
            "matrices": matrices(self.model()),
            "parameters": sum(parameter.numel() for parameter in self.model().parameters()),
            "state_bytes": self._state_bytes(),
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
        }

    def memory(self) -> int | None:
        """The peak of forward and backward above weights, gradients and optimiser state, in bytes.

        Gradients are there before, so that a side whose peak comes before its first gradient is not flattered.
        """
        for parameter in self._trained():
            # Written to, since untouched pages of zeros are no memory yet.
            parameter.grad = torch.empty_like(parameter).fill_(0)
        self._gauge.start()
        self.update()
        return self._peak

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model().parameters() if parameter.requires_grad]

    def _state_bytes(self) -> int:
        """The model's own: its weights, and gradients and AdamW's two moments, in fp32, of what is trained."""
        held: int = sum(parameter.numel() * parameter.element_size() for parameter in self.model().parameters())
        return held + sum(3 * 4 * parameter.numel() for parameter in self._trained())

    def times(self, num: int) -> list[dict[str, float]]:
        """Seconds of so many updates, by phase; ``update_s`` is all but the optimiser's step."""
        return [self._time() for _ in range(num)]

    def stepping(self) -> None:
        self._peak = self._gauge.above()

    def _time(self) -> dict[str, float]:
        self.clock.taken_s.clear()
        start = self.clock.now()
        with self.clock.watching_backward():
            self.update()
        whole = self.clock.now() - start
        forward, backward, step = (self.clock.taken_s[name] for name in ("forward", "backward", "optimiser"))
        return {
            "update_s": whole - step,
            "forward_s": forward,
            "backward_s": backward,
            "other_s": whole - step - forward - backward,
            "optimiser_s": step,
        }


def matrices(model: Any) -> list[tuple[int, int, int]]:
    """Outputs, inputs and number of the model's matrices of each shape, the output head last."""
    head = model.get_output_embeddings().weight
    shapes: dict[tuple[int, int], int] = defaultdict(int)
    for parameter in body_matrices(model):
        if parameter.dim() == 2:
            shapes[parameter.shape[0], parameter.shape[1]] += 1
    return [(*shape, count) for shape, count in shapes.items()] + [(head.shape[0], head.shape[1], 1)]


def rows_for(budget: int, groups: Sequence[FixedGroup]) -> int:
    """Padded rows that fit a budget of tokens; one at least."""
    return max(1, budget // sum(longest(groups)))

"""One way to make an update, timed phase by phase: what the ways to be compared have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import timer

from grpo.advantages.compute import compute_advantages
from grpo.batching.micro_batches import make_batches
from grpo.bench.arithmetic import Work, flops, matmul_rates, matrices, model_shape
from grpo.bench.machine import UpdatePeak
from grpo.bench.options import MAX_NEW_TOKENS, Options
from grpo.bench.rollouts import REWARD, Groups, longest
from grpo.parallel.world import SoleWorld, join_world
from grpo.policy.policy import PolicySettings
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection, advantage_of
from grpo.records import Batch, PromptTree
from rewards.spec import RewardSpec

LR = 1e-6


@dataclass(frozen=True)
class UpdateJob:
    """An update to make again and again, always on the same rollouts. `corrects`: completions are weighed for the gap
    to the engine, as TRL does it."""

    folder: Path
    groups: Groups
    options: Options
    corrects: bool = False

    @property
    def max_new_tokens(self) -> int:
        return MAX_NEW_TOKENS if self.options.shape else longest(self.groups)[1]

    def settings(self) -> PolicySettings:
        """As a recipe would say it, with DAPO's objective, which is the default."""
        asked = self.options
        model = {"path": str(self.folder), "compute": asked.compute, "compile": asked.compile}
        model |= {"gradient_checkpointing": asked.gradient_checkpointing}
        if asked.lora_rank:
            model |= {"lora": {"rank": asked.lora_rank, "alpha": 2 * asked.lora_rank}}
        update: dict[str, Any] = {"lr": LR, "tokens_per_micro_batch": asked.budget}
        if self.corrects:
            update |= {"correction": "sequence_mask", "correction_options": {"low": 0.0, "high": 3.0}}
        rollout = {"prompts_per_step": asked.groups, "group_size": asked.group_size}
        rollout |= {"max_new_tokens": self.max_new_tokens}
        # As TRL's engine.
        rollout |= {"max_parallel": asked.groups * asked.group_size, "eager": False}
        return PolicySettings(
            ModelSection.model_validate(model),
            UpdateSection.model_validate(update),
            RolloutSection.model_validate(rollout),
            steps=10**6,
        )

    def batch(self, budget: int) -> Batch:
        """Micro-batches of so many tokens; no KL is in the rewards."""
        settings = self.settings().update.model_copy(update={"tokens_per_micro_batch": budget})
        summaries = [group.summary(position=number) for number, group in enumerate(self.groups)]
        credited = compute_advantages(summaries, {}, [RewardSpec(name=REWARD)], advantage_of(settings))
        alone = SoleWorld(torch.device("cpu"))
        [batch] = make_batches(credited, dict(enumerate(self.groups)), {}, settings, self.max_new_tokens, alone)
        return batch


class Stopwatch:
    """Seconds by phase, one phase after another. What a device has not done yet is waited for."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, float]] = []

    def enter(self, phase: str) -> None:
        """All time from here on, until the next phase is entered, is this one's."""
        self._marks.append((phase, timer()))

    def read(self) -> dict[str, float]:
        """What every phase took up to now, 0 for one that never was; then begin anew."""
        self.enter("")
        taken: dict[str, float] = defaultdict(float)
        for (phase, start), (_, stop) in pairwise(self._marks):
            taken[phase] += stop - start
        self._marks.clear()
        return taken


class Side(ABC):
    """The weights, the optimiser and the rollouts are there; `update` is the whole of one update.

    In every update it enters the phases ``forward``, ``backward`` and ``other`` of `watch`, and calls `stepping` once,
    when only the optimiser's step is left. It leaves behind `loss`, which is minus the mean of advantage x log-prob
    over all completion tokens, and the gradient's norm before clipping.
    """

    layout: str
    """What a completion is in a micro-batch."""
    count: Callable[[Sequence[Sequence[PromptTree]]], Work]
    model: Any
    """What is trained, as transformers has it."""
    loss = grad_norm = math.nan

    def __init__(self, job: UpdateJob) -> None:
        self.job = job
        self.settings = job.settings()
        self.device = join_world(job.options.device).device
        self.watch = Stopwatch()
        self._gauge = UpdatePeak(self.device)
        self._peak: int | None = None

    @abstractmethod
    def update(self) -> None:
        """Forward and backward of all rollouts and one step of the optimiser."""

    @abstractmethod
    def batch(self) -> Batch:
        """The rollouts in micro-batches, made anew for every update, as in a run."""

    def stepping(self) -> None:
        self._peak = self._gauge.above()
        self.watch.enter("optimiser")

    def warm_up(self) -> dict[str, Any]:
        """The first update, which is not timed, and what there is to know of this side."""
        self.update()
        shape, work = model_shape(self.model), self.work()
        num_branches = [sum(len(tree.branches) for tree in trees) for trees in self.batch().micro_batches]
        weights, trained = list(self.model.parameters()), self.trained()
        return {
            "loss": self.loss,
            "grad_norm": self.grad_norm,
            "layout": f"{self.layout}; {len(num_branches)} micro-batches of up to {max(num_branches)} completions",
            "flops": flops(shape, work),
            "work": asdict(work),
            "model_shape": asdict(shape),
            "parameters": sum(one.numel() for one in weights),
            # Weights, and of what is trained a gradient and AdamW's two moments, in fp32.
            "state_bytes": sum(one.nbytes for one in weights) + sum(3 * 4 * one.numel() for one in trained),
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
        }

    def memory(self) -> int | None:
        """The peak of forward and backward above weights, gradients and optimiser state, in bytes.

        Gradients are there before, so that a side whose peak comes before its first gradient is not flattered.
        """
        for parameter in self.trained():
            # Written to, since untouched pages of zeros are no memory yet.
            parameter.grad = torch.empty_like(parameter).fill_(0)
        self._gauge.start()
        self.update()
        return self._peak

    def times(self, num: int) -> list[dict[str, float]]:
        """Seconds of so many updates, by phase; ``update_s`` is all but the optimiser's step."""
        rows = []
        for _ in range(num):
            self.watch.read()
            self.watch.enter("other")
            self.update()
            taken = self.watch.read()
            phases = {f"{name}_s": taken[name] for name in ("forward", "backward", "other", "optimiser")}
            rows.append({"update_s": sum(phases.values()) - phases["optimiser_s"], **phases})
        return rows

    def rates(self) -> dict[str, float]:
        """FLOP/s of the model's own products, by type, with about as many tokens at once as in this update."""
        work = self.work()
        num = max(1, math.ceil(work.body_tokens / self.job.options.budget))
        return matmul_rates(matrices(self.model), work.body_tokens // num, work.head_tokens // num, self.device)

    def work(self) -> Work:
        """What the model computes in one update."""
        return type(self).count(self.batch().micro_batches)

    def trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def measure_side(kind: Callable[[UpdateJob], Side], job: UpdateJob, num: int) -> dict[str, Any]:
    """All that there is to know of a side, with the times of `num` updates, and the machine's rates of matrix products
    before them and after them."""
    side = kind(job)
    found = side.warm_up() | {"peak_memory_bytes": side.memory()}
    before = side.rates()
    return found | {"times": side.times(num), "rates": [before, side.rates()]}


def rows_for(budget: int, groups: Groups) -> int:
    """Padded rows that fit a budget of tokens; one at least."""
    return max(1, budget // sum(longest(groups)))

"""The whole step of this trainer, from weight sync to update, with the real engine where vLLM is installed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grpo.bench.side import UpdateJob
from grpo.bench.sides import OurUpdate
from grpo.bench.work import FixedGroup, draw_rewards, num_tokens
from grpo.model.files import load_tokenizer, stop_ids
from grpo.parallel.world import join_world
from grpo.recipe.sections import RolloutSection
from grpo.rollout.engines.protocol import Engine, Request, Sampling, derive_seed
from grpo.rollout.weight_sync.proof import PROBE_PROMPTS, PROBE_TOKENS, WeightSync


@dataclass(frozen=True)
class WriterJob:
    """Prompts that completions are wanted for."""

    folder: Path
    prompts: tuple[tuple[int, ...], ...]
    group_size: int
    max_new_tokens: int
    device: str
    log: Path


@dataclass(frozen=True)
class StepJob:
    """A whole step to make again and again. The update is always on the job's rollouts, whatever was written."""

    update: UpdateJob
    generate: bool
    warm_up_steps: int
    num_steps: int
    log: Path


class Writer:
    """The engine alone, with the model's own weights: writes the rollouts that everything else is given."""

    def __init__(self, job: WriterJob) -> None:
        self._job = job
        settings = RolloutSection(
            prompts_per_step=len(job.prompts), group_size=job.group_size, max_new_tokens=job.max_new_tokens
        )
        self._engine = _open_engine(job.folder, settings, job.prompts, job.device, job.log)
        self._sampling = _sampling(job.folder, settings)

    def write(self) -> list[FixedGroup]:
        """A group for each prompt, in order, with rewards that are drawn and not all alike."""
        rng = random.Random("rewards")
        requests = _requests(self._job.prompts, self._job.group_size, "recorded")
        written = dict(self._engine.generate(requests, self._sampling))
        return [
            FixedGroup(
                prompt=prompt,
                completions=tuple(tuple(one.token_ids.tolist()) for one in written[number]),
                sampler_logps=tuple(tuple(one.logps.tolist()) for one in written[number]),
                rewards=draw_rewards(self._job.group_size, rng),
            )
            for number, prompt in enumerate(self._job.prompts)
        ]

    def close(self) -> None:
        self._engine.close()


class WholeStep:
    """Policy, engine and weight sync as in a run."""

    def __init__(self, job: StepJob) -> None:
        self._job = job
        self._update = OurUpdate(job.update)
        self._clock = self._update.clock
        self._stack = contextlib.ExitStack()
        groups = job.update.groups
        self._prompts = [group.prompt for group in groups]
        self._engine: Engine | None = None
        if job.generate:
            settings = job.update.settings().rollout
            self._engine = _open_engine(job.update.folder, settings, self._prompts, job.update.device, job.log)
            self._stack.callback(self._engine.close)
            self._sampling = _sampling(job.update.folder, settings)
            probe = [prompt[:PROBE_TOKENS] for prompt in self._prompts[:PROBE_PROMPTS]]
            world = join_world(job.update.device)
            self._sync = WeightSync(self._engine, self._update.policy, world, probe, settings.sync_tolerance)

    def run(self) -> dict[str, Any]:
        """Seconds by phase, one entry a step after the warm-up, and what was seen of the last update."""
        steps = [self._step(number) for number in range(self._job.warm_up_steps + self._job.num_steps)]
        timed = steps[self._job.warm_up_steps :]
        return {name: [step[name] for step in timed] for name in timed[0]} | {
            "completion_tokens": num_tokens(self._job.update.groups),
            "loss": self._update.loss,
            "grad_norm": self._update.grad_norm,
            "layout": self._update.layout(),
        }

    def close(self) -> None:
        self._stack.close()

    def _step(self, number: int) -> dict[str, float]:
        start = self._clock.now()
        generated = synced = start
        num_generated = 0
        if self._engine is not None:
            self._sync.bring()
            synced = self._clock.now()
            size = len(self._job.update.groups[0].completions)
            requests = _requests(self._prompts, size, f"step {number}")
            num_generated = sum(
                len(one.token_ids) for _, written in self._engine.generate(requests, self._sampling) for one in written
            )
            generated = self._clock.now()
        self._update.update()
        end = self._clock.now()
        return {
            "step_s": end - start,
            "sync_s": synced - start,
            "generate_s": generated - synced,
            "update_s": end - generated,
            "generated_tokens": num_generated,
        }


def _open_engine(
    folder: Path, settings: RolloutSection, prompts: Sequence[Sequence[int]], device: str, log: Path
) -> Engine:
    from grpo.rollout.engines.vllm_client import VllmEngine

    return VllmEngine(
        folder,
        settings,
        max_model_len=max(map(len, prompts)) + settings.max_new_tokens,
        device=join_world(device).device,
        seed=0,
        log=log,
    )


def _sampling(folder: Path, settings: RolloutSection) -> Sampling:
    ends = stop_ids(folder, load_tokenizer(folder))
    return Sampling(settings.temperature, settings.max_new_tokens, ends)


def _requests(prompts: Sequence[tuple[int, ...]], group_size: int, name: str) -> list[Request]:
    return [
        Request(np.array(prompt, np.int32), tuple(derive_seed(name, number, index) for index in range(group_size)))
        for number, prompt in enumerate(prompts)
    ]

"""Sides measured in turns, so that a machine that drifts does it to all of them alike."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.benchmark import timer

from grpo.bench.beside_trl import run_trl, trl_job
from grpo.bench.memory import TreePeak
from grpo.bench.process import run_apart
from grpo.bench.rollouts import open_rollouts, token_counts
from grpo.bench.side import UpdateJob, measure_side
from grpo.bench.sides import OurUpdate, PaddedUpdate
from grpo.phases import PhaseClock
from grpo.rollout.generate import GenerationPlan

SIDES = {"ours": OurUpdate, "padded": PaddedUpdate}
WARM_UP_STEPS = 2
"""Whole steps before those that are timed: the first makes the optimiser's state, the second finds room beside it."""


def measure_updates(job: UpdateJob, temporary: Path) -> dict[str, Any]:
    """What is found of each side, in turns. They are there one at a time, since each may need most of a GPU, and come
    twice where there is more than one update to time."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in filter(None, (math.ceil(job.options.steps / 2), job.options.steps // 2)):
        for side, kind in SIDES.items():
            say(f"{side}: warm-up, memory and {number} updates")
            runs[side].append(run_apart(partial(measure_side, kind, job, number), temporary / f"{side}.log"))
    return {side: _joined(found) for side, found in runs.items()}


def measure_steps(job: UpdateJob, temporary: Path, *, generate: bool) -> dict[str, Any]:
    """The whole step of ours and of TRL, each run `rounds` times from start to end, in turns."""
    options = job.options
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    for number in range(options.rounds):
        say(f"whole steps, round {number + 1} of {options.rounds}: ours")
        peak = TreePeak()
        engine_log = temporary / f"engine_{number}.log" if generate else None
        steps = partial(run_steps, job, WARM_UP_STEPS, options.steps, engine_log)
        run = run_apart(steps, temporary / f"step_{number}.log", peak.look)
        runs["ours"].append(run | {"run_peak_bytes": peak.peak_bytes})
        say(f"whole steps, round {number + 1} of {options.rounds}: trl")
        peak = TreePeak()
        theirs = trl_job(job, generate=generate, warm_up_steps=WARM_UP_STEPS)
        run = run_trl(theirs, options.trl_python, temporary / f"trl_{number}", peak.look)
        runs["trl"].append(run | {"run_peak_bytes": peak.peak_bytes})
    return {side: _joined(found) for side, found in runs.items()} | {"generation": generate}


def run_steps(job: UpdateJob, warm_up_steps: int, num_steps: int, engine_log: Path | None) -> dict[str, Any]:
    """Whole steps as in a run, from weight sync to update; without an engine (`engine_log` is None) updates alone.

    Seconds by phase, one entry a step after the warm-up, and what was seen of the last update. That is always on the
    job's rollouts, whatever was written.
    """
    side = OurUpdate(job)
    prompts = [one.group.prompt for one in job.groups]
    clock, steps = PhaseClock(), []
    if engine_log:
        settings = job.settings().rollout
        rollouts, sampling, clock = open_rollouts(
            job.folder, settings, prompts, job.options.device, engine_log, side.policy
        )
    for number in range(warm_up_steps + num_steps):
        clock.lap()
        plan = engine_log and GenerationPlan(job.options.group_size, sampling, f"step {number}")
        written = [one for group in rollouts.write(prompts, plan) for one in group.completions] if plan else []
        side.update()
        timer()  # waits for the device
        taken = clock.lap()
        step = {f"{name}_s": taken.get(f"time/{name}_s", 0.0) for name in ("step", "sync", "generate")}
        step["update_s"] = step["step_s"] - step["sync_s"] - step["generate_s"]
        steps.append(step | {"generated_tokens": sum(len(one.token_ids) for one in written)})
    return {name: [step[name] for step in steps[warm_up_steps:]] for name in steps[0]} | {
        "completion_tokens": sum(token_counts(job.groups)[1]),
        "loss": side.loss,
        "grad_norm": side.grad_norm,
    }


def say(text: str) -> None:
    """Tell the person what is being done."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _joined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lists of all runs one after another, the highest peaks of memory; all else is the last run's."""
    joined = dict(runs[-1])
    for name, value in joined.items():
        if isinstance(value, list):
            joined[name] = [entry for run in runs for entry in run[name]]
        elif "peak" in name:
            joined[name] = max((run[name] for run in runs if run[name] is not None), default=None)
    return joined

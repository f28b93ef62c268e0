"""Sides measured in turns, so that a machine that drifts does it to all of them alike."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.benchmark import timer

from grpo.bench.beside_trl import run_trl, trl_job
from grpo.bench.memory import TreePeak
from grpo.bench.process import OwnProcess
from grpo.bench.rollouts import open_rollouts, token_counts
from grpo.bench.side import UpdateJob
from grpo.bench.sides import OurUpdate, PaddedUpdate
from grpo.phases import PhaseClock
from grpo.rollout.generate import GenerationPlan

SIDES = {"ours": OurUpdate, "padded": PaddedUpdate}
WARM_UP_STEPS = 2
"""Whole steps before those that are timed: the first makes the optimiser's state, the second finds room beside it."""


def measure_updates(
    job: UpdateJob, temporary: Path, *, together: bool
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """What is found of each side, its timings included, and the machine's rates of matrix products in FLOP/s by type,
    taken before, between and, where the sides are there together, after the timings.

    Each side has a process of its own. Together they make one update a turn; on a GPU, of which each side may need
    most, one at a time is there, and comes twice.
    """
    steps = job.options.steps
    turns = [1] * steps if together else [one for one in (math.ceil(steps / 2), steps // 2) if one]
    found: dict[str, Any] = {}
    times: dict[str, list[dict[str, float]]] = defaultdict(list)
    rates: list[dict[str, float]] = []
    processes: dict[str, OwnProcess] = {}
    with ExitStack() as stack:
        for turn, number in enumerate(turns):
            for side, kind in SIDES.items():
                say(f"turn {turn + 1} of {len(turns)}: {side}")
                if side not in processes:
                    processes[side] = stack.enter_context(OwnProcess(temporary / f"{side}.log"))
                    processes[side].open(kind, job)
                    found[side] = processes[side].ask("warm_up") | {"peak_memory_bytes": processes[side].ask("memory")}
                if side == "ours":
                    rates.append(processes[side].ask("rates"))
                times[side] += processes[side].ask("times", number)
                if not together:
                    processes.pop(side).close()
        if together:
            rates.append(processes["ours"].ask("rates"))
    return {side: found[side] | {"times": times[side]} for side in SIDES}, rates


def measure_steps(job: UpdateJob, temporary: Path, *, generate: bool) -> dict[str, Any]:
    """The whole step of ours and of TRL, each run `rounds` times from start to end, in turns."""
    options = job.options
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    for number in range(options.rounds):
        say(f"whole steps, round {number + 1} of {options.rounds}: ours")
        peak = TreePeak()
        with OwnProcess(temporary / f"step_{number}.log", peak.look) as process:
            engine_log = temporary / f"engine_{number}.log" if generate else None
            run = process.run(partial(run_steps, job, WARM_UP_STEPS, options.steps, engine_log))
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
    """Lists of all runs one after another, the highest peak of memory; all else is the last run's."""
    last = runs[-1]
    lists = {name: [value for run in runs for value in run[name]] for name in last if isinstance(last[name], list)}
    peak = max((run["run_peak_bytes"] for run in runs if run["run_peak_bytes"] is not None), default=None)
    return dict(last) | lists | {"run_peak_bytes": peak}

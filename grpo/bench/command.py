"""`grpo bench`: one update on fixed rollouts beside the plain padded one, and one whole step beside TRL's.

Sides are measured in turns, so that a machine that drifts does it to all of them alike.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.benchmark import timer

from grpo.bench.beside_trl import peer_has_vllm, run_trl, trl_job
from grpo.bench.machine import TreePeak, describe_machine, warnings
from grpo.bench.options import Options
from grpo.bench.process import BenchError, run_apart
from grpo.bench.random_model import save_random_model
from grpo.bench.report import disagreements, drift, show, step_report, update_report
from grpo.bench.rollouts import longest, make_rollouts, open_rollouts, token_counts
from grpo.bench.side import UpdateJob, measure_side
from grpo.bench.sides import OurUpdate, PaddedUpdate
from grpo.errors import UserError
from grpo.model.files import resolve_model
from grpo.phases import PhaseClock
from grpo.rollout.generate import GenerationPlan

SIDES = {"ours": OurUpdate, "padded": PaddedUpdate}
WARM_UP_STEPS = 2
"""Whole steps before those that are timed: the first makes the optimiser's state, the second finds room beside it."""


def bench(options: Options) -> int:
    """Measure, print, and write the JSON file. The exit code: 0, or 1 where something failed."""
    if options.device == "cpu":
        # For every process that is started, TRL's and the engines' among them.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        with tempfile.TemporaryDirectory(prefix="grpo-bench-") as temporary:
            report = measure(options, Path(temporary))
    except BenchError as error:
        print(f"grpo: {error}", file=sys.stderr)
        return 1
    show(report, Console())
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def measure(options: Options, temporary: Path) -> dict[str, Any]:
    """Everything that is printed, as one mapping."""
    beside_trl = "trl" in options.against
    generate = find_spec("vllm") is not None and (not beside_trl or peer_has_vllm(options.trl_python))
    on_cpu = _is_on_cpu(options.device)
    found = warnings(on_cpu)
    for line in found:
        _say(f"warning: {line}")
    folder = _model_folder(options, temporary)
    _say("rollouts")
    groups, what = make_rollouts(options, folder, temporary, engine=generate)
    job = UpdateJob(folder, groups, options)
    sides = measure_updates(job, temporary)
    whole = None
    if beside_trl:
        corrects = options.trl_correction and bool(options.shape) and generate
        whole = measure_steps(replace(job, corrects=corrects), temporary, generate=generate)
    prompt_tokens, completion_tokens = map(sum, token_counts(groups))
    work = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "longest": longest(groups)}
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    return {
        **update_report(sides, completion_tokens, options.compute),
        **step_report(whole),
        "work": work | {"rollouts": what},
        "asked": asked | {"model_folder": folder.name},
        "machine": describe_machine() | {name: sides["ours"][name] for name in ("device", "threads")},
        "warnings": found + disagreements(sides, options.compute) + drift(sides, options.compute),
    }


def measure_updates(job: UpdateJob, temporary: Path) -> dict[str, Any]:
    """What is found of each side, in turns. They are there one at a time, since each may need most of a GPU, and come
    twice where there is more than one update to time."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in filter(None, (math.ceil(job.options.steps / 2), job.options.steps // 2)):
        for side, kind in SIDES.items():
            _say(f"{side}: warm-up, memory and {number} updates")
            runs[side].append(run_apart(partial(measure_side, kind, job, number), temporary / f"{side}.log"))
    return {side: _joined(found) for side, found in runs.items()}


def measure_steps(job: UpdateJob, temporary: Path, *, generate: bool) -> dict[str, Any]:
    """The whole step of ours and of TRL, each run `rounds` times from start to end, in turns."""
    options = job.options
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    for number in range(options.rounds):
        _say(f"whole steps, round {number + 1} of {options.rounds}: ours")
        peak = TreePeak()
        engine_log = temporary / f"engine_{number}.log" if generate else None
        steps = partial(run_steps, job, WARM_UP_STEPS, options.steps, engine_log)
        run = run_apart(steps, temporary / f"step_{number}.log", peak.look)
        runs["ours"].append(run | {"run_peak_bytes": peak.peak_bytes})
        _say(f"whole steps, round {number + 1} of {options.rounds}: trl")
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


def _model_folder(options: Options, temporary: Path) -> Path:
    if not options.size:
        return resolve_model(options.model)
    _say(f"making random weights in the shape of Qwen2.5-{options.size.upper()}")
    folder = temporary / f"random-qwen2.5-{options.size}"
    run_apart(partial(save_random_model, options.size, folder), temporary / "model.log")
    return folder


def _is_on_cpu(device: str) -> bool:
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("--device=cuda: this machine has no CUDA device; give --device cpu, or leave it out")
    return device == "cpu" or not available


def _joined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lists of all runs one after another, the highest peaks of memory; all else is the last run's."""
    joined = dict(runs[-1])
    for name, value in joined.items():
        if isinstance(value, list):
            joined[name] = [entry for run in runs for entry in run[name]]
        elif "peak" in name:
            joined[name] = max((run[name] for run in runs if run[name] is not None), default=None)
    return joined


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)

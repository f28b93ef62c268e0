"""Sides measured in turns, so that a machine that drifts does it to all of them alike."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grpo.bench.matmul import MatmulJob
from grpo.bench.memory import TreePeak
from grpo.bench.peer import TrlSide
from grpo.bench.side import UpdateJob
from grpo.bench.whole import StepJob
from grpo.bench.worker import Worker

SIDES = ("ours", "padded")
Say = Callable[[str], None]
Open = Callable[[str, Any], Worker]
"""A kind and its job to a process that has opened it."""


@dataclass(frozen=True)
class Updates:
    """What was found of each side, its timings included, and the machine's rates of matrix products, in FLOP/s by
    type: before the timings and after them."""

    sides: dict[str, Any]
    rates: list[dict[str, float]]


def measure_updates(job: UpdateJob, steps: int, open_: Open, say: Say) -> Updates:
    """Both sides are there from start to end, and make one update each in turn."""
    times: dict[str, list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as stack:
        workers = {side: stack.enter_context(open_(side, job)) for side in SIDES}
        found = {}
        for side in SIDES:
            say(f"{side}: warm-up and memory")
            found[side] = _first(workers[side])
        matmul = stack.enter_context(open_("matmul", matmul_job(job, found["ours"])))
        rates = [matmul.ask("rates")]
        for number in range(steps):
            say(f"update {number + 1} of {steps}")
            for side in SIDES:
                times[side] += workers[side].ask("times", 1)
        rates.append(matmul.ask("rates"))
    return Updates({side: found[side] | {"times": times[side]} for side in SIDES}, rates)


def measure_updates_apart(job: UpdateJob, steps: int, open_: Open, say: Say) -> Updates:
    """For a GPU, of which each side may need most: one at a time is there, and comes twice."""
    found: dict[str, Any] = {}
    times: dict[str, list[dict[str, float]]] = defaultdict(list)
    rates = []
    for number in filter(None, [math.ceil(steps / 2), steps // 2]):
        for side in SIDES:
            say(f"{side}: warm-up, memory and {number} updates")
            with open_(side, job) as worker:
                found[side] = _first(worker)
                times[side] += worker.ask("times", number)
        with open_("matmul", matmul_job(job, found["ours"])) as worker:
            rates.append(worker.ask("rates"))
    return Updates({side: found[side] | {"times": times[side]} for side in SIDES}, rates)


def matmul_job(job: UpdateJob, side: Mapping[str, Any]) -> MatmulJob:
    """Products in the shapes of a side's update."""
    work = side["work"]
    num_micro_batches = max(1, math.ceil(work["body_tokens"] / job.budget))
    return MatmulJob(
        device=job.device,
        matrices=tuple(map(tuple, side["matrices"])),
        rows=work["body_tokens"] // num_micro_batches,
        head_rows=work["head_tokens"] // num_micro_batches,
    )


def measure_steps(
    job: UpdateJob, peer: TrlSide, rounds: int, temporary: Path, env: dict[str, str], say: Say
) -> dict[str, Any]:
    """The whole step of ours and of TRL, each run `rounds` times from start to end, in turns."""
    job = replace(job, correct_sampler=peer.correction)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    peaks: dict[str, list[int | None]] = {"ours": [], "trl": []}
    for number in range(rounds):
        log = temporary / f"engine_{number}.log"
        step = StepJob(job, peer.generate, peer.warm_up_steps, peer.num_steps, log)
        say(f"whole steps, round {number + 1} of {rounds}: ours")
        peak = TreePeak()
        with Worker("step", step, temporary / f"step_{number}.log", env, peak.look) as worker:
            runs["ours"].append(worker.ask("run"))
        peaks["ours"].append(peak.peak_bytes)
        say(f"whole steps, round {number + 1} of {rounds}: trl")
        peak = TreePeak()
        runs["trl"].append(peer.run(job, temporary / f"trl_{number}", env, peak.look))
        peaks["trl"].append(peak.peak_bytes)
    return {side: _joined(runs[side]) | {"run_peak_bytes": _highest(peaks[side])} for side in runs}


def medians(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By name, the median of each."""
    return {name: statistics.median(one[name] for one in times) for name in times[0]}


def _first(worker: Worker) -> dict[str, Any]:
    found: dict[str, Any] = worker.ask("warm_up")
    return found | {"peak_memory_bytes": worker.ask("memory")}


def _joined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lists of all runs one after another; all else is the last run's."""
    last = runs[-1]
    lists = {name: [value for run in runs for value in run[name]] for name in last if isinstance(last[name], list)}
    return dict(last) | lists


def _highest(peaks: Sequence[int | None]) -> int | None:
    return max((peak for peak in peaks if peak is not None), default=None)

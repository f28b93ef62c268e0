"""`grpo bench`: one update on fixed rollouts beside the plain padded one, and one whole step beside TRL's."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grpo.bench.installed import has_vllm, peer_has_vllm
from grpo.bench.machine import describe_machine, warnings
from grpo.bench.options import MAX_NEW_TOKENS, Options
from grpo.errors import UserError
from grpo.model.files import resolve_model

WARM_UP_STEPS = 2
"""Whole steps before those that are timed: the first makes the optimiser's state, the second finds room beside it."""
_STEADY = 0.15
"""How much of its rate of matrix products a machine may lose within a run without a word about it."""
_AGREES = {"fp32": {"loss": (1e-3, 1e-3), "grad_norm": (1e-3, 1e-3)}, "bf16": {"loss": (0.05, 0.02)}}
"""How far apart the sides may be, relative and absolute, without a word about it; the loss is in nats a token. In bf16
the gradient says little: on random tokens the embedded model's has a norm of 9.41 in fp32 on either side, and of 11.5
to 13.7 in bf16, by rounding alone."""


def bench(options: Options) -> int:
    """Measure, print, and write the JSON file. The exit code: 0, or 1 where something failed."""
    from grpo.bench.table import lines
    from grpo.bench.worker import BenchError

    try:
        with tempfile.TemporaryDirectory(prefix="grpo-bench-") as temporary:
            report = measure(options, Path(temporary))
    except BenchError as error:
        print(f"grpo: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(report)))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def measure(options: Options, temporary: Path) -> dict[str, Any]:
    """Everything that is printed, as one mapping."""
    against_trl = "trl" in options.against
    generate = has_vllm() and (not against_trl or peer_has_vllm(options.trl_python))
    on_cpu = _is_on_cpu(options.device)
    found = warnings(on_cpu)
    for line in found:
        _say(f"warning: {line}")
    env = _environment(options)
    folder = _model_folder(options, temporary, env)

    from grpo.bench.peer import TrlSide
    from grpo.bench.rollouts import make_rollouts
    from grpo.bench.side import UpdateJob
    from grpo.bench.turns import measure_steps, measure_updates, measure_updates_apart
    from grpo.bench.work import longest, num_tokens
    from grpo.bench.worker import Worker

    def open_(kind: str, job: Any) -> Worker:
        return Worker(kind, job, temporary / f"{kind}.log", env)

    _say("rollouts")
    groups, what = make_rollouts(options, folder, temporary, env, engine=generate)
    job = UpdateJob(
        folder=folder,
        groups=groups,
        device=options.device,
        compute=options.compute,
        gradient_checkpointing=options.gradient_checkpointing,
        compile=options.compile,
        lora_rank=options.lora_rank,
        budget=options.budget,
        max_new_tokens=MAX_NEW_TOKENS if options.shape else longest(groups)[1],
    )
    updates = (measure_updates if on_cpu else measure_updates_apart)(job, options.steps, open_, _say)
    sides = updates.sides
    whole = None
    if against_trl:
        peer = TrlSide(
            python=options.trl_python,
            weights=options.trl_weights,
            rows=options.trl_rows,
            correction=options.trl_correction and bool(options.shape) and generate,
            generate=generate,
            num_steps=options.steps,
            warm_up_steps=WARM_UP_STEPS,
        )
        whole = measure_steps(job, peer, options.rounds, temporary, env, _say)
        whole["generation"] = generate

    from grpo.bench.report import make_report

    found += disagreements(sides, options.compute) + drift(updates.rates, options.compute)
    machine = describe_machine() | {"device": sides["ours"]["device"], "threads": sides["ours"]["threads"]}
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    tokens = {"completion_tokens": num_tokens(groups), "prompt_tokens": sum(len(group.prompt) for group in groups)}
    shapes = {"longest": longest(groups), "rollouts": what}
    return make_report(
        asked | {"model_folder": folder.name}, machine, found, tokens | shapes, sides, updates.rates, whole
    )


def _model_folder(options: Options, temporary: Path, env: dict[str, str]) -> Path:
    if not options.size:
        return resolve_model(options.model)
    from grpo.bench.worker import Worker

    _say(f"making random weights in the shape of Qwen2.5-{options.size.upper()}")
    folder = temporary / f"random-qwen2.5-{options.size}"
    with Worker("model", options.size, temporary / "model.log", env) as worker:
        worker.ask("save", folder)
    return folder


def _is_on_cpu(device: str) -> bool:
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("--device=cuda: this machine has no CUDA device; give --device cpu, or leave it out")
    return device == "cpu" or not available


def _environment(options: Options) -> dict[str, str]:
    """For every process that is started, so that TRL has the same as ours."""
    env = {"TOKENIZERS_PARALLELISM": "false"}
    if options.device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


def disagreements(sides: dict[str, Any], compute: str) -> list[str]:
    """Whether the sides did the same work, seen in what came out of it."""
    ours, padded = sides["ours"], sides["padded"]
    return [
        f"the sides' {name} differ: ours {ours[name]:.6g}, padded {padded[name]:.6g}"
        for name, (relative, absolute) in _AGREES[compute].items()
        if not math.isclose(ours[name], padded[name], rel_tol=relative, abs_tol=absolute)
    ]


def drift(rates: Sequence[Mapping[str, float]], compute: str) -> list[str]:
    """Whether the machine was as fast after the timings as before them."""
    slowest, fastest = min(each[compute] for each in rates), max(each[compute] for each in rates)
    lost = 1 - slowest / fastest
    if lost <= _STEADY:
        return []
    return [f"the machine drifts: its rate of matrix products was {100 * lost:.0f} % lower at one end"]


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)

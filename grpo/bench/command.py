"""`grpo bench`: one update on fixed rollouts beside the plain padded one, and one whole step beside TRL's."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from grpo.bench.beside_trl import peer_has_vllm
from grpo.bench.machine import describe_machine, warnings
from grpo.bench.options import Options
from grpo.bench.process import BenchError, run_apart
from grpo.bench.random_model import save_random_model
from grpo.bench.report import disagreements, drift, show, step_report, update_report
from grpo.bench.rollouts import longest, make_rollouts, token_counts
from grpo.bench.side import UpdateJob
from grpo.bench.turns import measure_steps, measure_updates, say
from grpo.errors import UserError
from grpo.model.files import resolve_model


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
        say(f"warning: {line}")
    folder = _model_folder(options, temporary)
    say("rollouts")
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


def _model_folder(options: Options, temporary: Path) -> Path:
    if not options.size:
        return resolve_model(options.model)
    say(f"making random weights in the shape of Qwen2.5-{options.size.upper()}")
    folder = temporary / f"random-qwen2.5-{options.size}"
    run_apart(partial(save_random_model, options.size, folder), temporary / "model.log")
    return folder


def _is_on_cpu(device: str) -> bool:
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("--device=cuda: this machine has no CUDA device; give --device cpu, or leave it out")
    return device == "cpu" or not available

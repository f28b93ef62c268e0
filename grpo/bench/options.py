"""What `grpo bench` is asked for: its arguments, and what can be wrong with them before anything heavy is imported."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grpo.errors import UserError

MAX_NEW_TOKENS = 96
"""The longest completion of shapes A and E."""
TEMPLATES = {"A": "chat", "E": "r1_zero_one_shot"}
"""A: only an instruction in the prompt; E: one worked example."""
SIZES = ("0.5b", "1.5b")
_EMBEDDED = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Options:
    """The arguments, one field each."""

    model: str = _EMBEDDED
    size: str | None = None
    prompt_tokens: int = 90
    completion_tokens: int = 28
    group_size: int = 8
    groups: int = 4
    spread: float = 0.0
    shape: Literal["A", "E"] | None = None
    against: tuple[str, ...] = ("padded",)
    steps: int = 3
    rounds: int = 2
    budget: int = 4096
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    compile: bool = False
    lora_rank: int | None = None
    trl_python: Path = Path(sys.executable)
    trl_weights: Literal["float32", "bfloat16"] = "float32"
    trl_rows: int | None = None
    trl_correction: bool = True
    json: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `grpo bench` takes."""
    default = Options()
    work = parser.add_argument_group("the work")
    model = work.add_mutually_exclusive_group()
    model.add_argument("--model", default=default.model, help="a Hugging Face folder or id (default: the embedded one)")
    model.add_argument("--size", choices=SIZES, help="random weights in the shape of Qwen2.5: nothing is downloaded")
    lengths = (
        ("--prompt-tokens", "mean length of a prompt"),
        ("--completion-tokens", "mean length of a completion"),
    )
    for name, meaning in lengths:
        field = name.removeprefix("--").replace("-", "_")
        work.add_argument(name, type=int, metavar="N", help=f"{meaning} (default: {getattr(default, field)})")
    work.add_argument("--spread", type=float, metavar="S", help="lengths even from mean (1 - S) to mean (1 + S)")
    work.add_argument("--groups", type=int, default=default.groups, metavar="N", help="default: %(default)s")
    work.add_argument("--group-size", type=int, default=default.group_size, metavar="G", help="default: %(default)s")
    work.add_argument(
        "--shape",
        choices=sorted(TEMPLATES),
        help=f"real prompts, completions of at most {MAX_NEW_TOKENS} tokens, written by vLLM where it is installed; "
        "A: an instruction, E: a worked example in the prompt",
    )
    how = parser.add_argument_group("how it is done")
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default=default.device)
    how.add_argument("--compute", choices=("bf16", "fp32"), default=default.compute, help="default: %(default)s")
    how.add_argument("--gradient-checkpointing", action="store_true", help="on both sides")
    how.add_argument("--compile", action="store_true", help="our layers, by torch.compile")
    how.add_argument("--lora-rank", type=int, metavar="N", help="train adapters of that rank on our side")
    how.add_argument(
        "--budget", type=int, default=default.budget, metavar="TOKENS", help="of a micro-batch (default: %(default)s)"
    )
    beside = parser.add_argument_group("what it is compared with")
    beside.add_argument(
        "--against",
        action="append",
        choices=("padded", "trl"),
        help="the padded reference is always there; trl: the whole step beside TRL's trainer as well",
    )
    beside.add_argument(
        "--steps", type=int, default=default.steps, metavar="N", help="timed on each side (default: %(default)s)"
    )
    beside.add_argument(
        "--rounds",
        type=int,
        default=default.rounds,
        metavar="N",
        help="beside TRL: times that each side is started, in turns, for so many steps (default: %(default)s)",
    )
    beside.add_argument(
        "--trl-python", type=Path, default=default.trl_python, metavar="PATH", help="a Python that has trl"
    )
    beside.add_argument(
        "--trl-weights", choices=("float32", "bfloat16"), default=default.trl_weights, help="default: %(default)s"
    )
    beside.add_argument(
        "--trl-rows",
        type=int,
        metavar="N",
        help="rows that TRL computes together (default: as many as the budget allows)",
    )
    beside.add_argument(
        "--no-trl-correction",
        dest="trl_correction",
        action="store_false",
        help="neither side weighs completions for the gap to the engine; TRL's default does, with a further pass",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")


def read_options(parsed: argparse.Namespace) -> Options:
    """The arguments that were given. Raises UserError with all faults at once."""
    given = {name: getattr(parsed, name) for name in Options.__dataclass_fields__}
    if faults := list(_clashes(given)):
        raise UserError("\n".join(faults))
    known = {name: value for name, value in given.items() if value is not None}
    options = Options(**known | {"against": tuple(dict.fromkeys(["padded", *(parsed.against or ())]))})
    if faults := list(_faults(options)):
        raise UserError("\n".join(faults))
    return options


def _clashes(given: dict[str, object]) -> Iterator[str]:
    for name in ("prompt_tokens", "completion_tokens", "spread"):
        if given["shape"] is not None and given[name] is not None:
            yield f"--{name.replace('_', '-')}={given[name]}: --shape says how long all is; leave one of them out"


def _faults(options: Options) -> Iterator[str]:
    least = {"prompt_tokens": 1, "completion_tokens": 1, "group_size": 2, "groups": 1, "steps": 1, "rounds": 1}
    for name, bound in least.items():
        if (value := getattr(options, name)) < bound:
            why = "a group of one has no advantage" if name == "group_size" else "nothing would be left to measure"
            yield f"--{name.replace('_', '-')}={value}: {why}; give at least {bound}"
    if options.trl_rows is not None and options.trl_rows < 1:
        yield f"--trl-rows={options.trl_rows}: nothing to compute; give at least 1, or leave it out"
    if options.lora_rank is not None and options.lora_rank < 1:
        yield f"--lora-rank={options.lora_rank}: an adapter without weights; give at least 1, or leave it out"
    if not (math.isfinite(options.spread) and 0 <= options.spread < 1):
        yield f"--spread={options.spread}: lengths would not be positive; give at least 0 and less than 1"
    elif not options.shape:
        longest = sum(
            math.ceil(each * (1 + options.spread)) for each in (options.prompt_tokens, options.completion_tokens)
        )
        if options.budget < longest:
            yield f"--budget={options.budget}: prompt and completion have up to {longest} tokens; give at least that"
    if options.json and not options.json.absolute().parent.is_dir():
        yield f"--json={options.json}: no such folder; make it, or give another file"
    if options.json and options.json.is_dir():
        yield f"--json={options.json}: is a folder; give a file"
    if "trl" in options.against:
        yield from _trl_faults(options)


def _trl_faults(options: Options) -> Iterator[str]:
    if options.compute == "fp32":
        yield "--compute=fp32: beside TRL both sides compute in bf16; leave it out, or --against trl"
    if options.lora_rank is not None:
        yield f"--lora-rank={options.lora_rank}: TRL trains the whole model here; leave it out, or --against trl"
    if options.gradient_checkpointing:
        yield "--gradient-checkpointing: beside TRL neither side does it; leave it out, or --against trl"
    found = shutil.which(options.trl_python)
    if not found or not os.access(found, os.X_OK):
        yield f"--trl-python={options.trl_python}: no such program; give the path of a Python that has trl"

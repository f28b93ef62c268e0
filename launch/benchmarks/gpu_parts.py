"""The parts of the GPU check: each writes rows of JSON as soon as it has them. gpu_check.py runs them.

python launch/benchmarks/gpu_parts.py PART --rows FILE --scratch FOLDER [--device cuda] [--small]
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from grpo.batching.pack import TreeShape
from grpo.errors import UserError
from grpo.model.attention.flex_trees import FlexTreeAttention
from grpo.model.attention.register import choose_attention
from grpo.model.compilation import RECOMPILE_LIMIT, missing_for_triton
from grpo.model.files import model_config
from grpo.model.memory import ModelShape, trainer_memory
from grpo.model.products import keeps_fp32
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy, PolicySettings
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection
from grpo.records import Batch, Branch, PromptTree

Row = dict[str, Any]
QWEN = {"num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True, "rms_norm_eps": 1e-6}
SIZES: dict[str, Row] = {
    "0.5b": QWEN | {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5b": QWEN | {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
}
"""Qwen2.5's, with random weights."""
SMALL = QWEN | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
SETTINGS: dict[str, Row] = {"eager": {}, "recomputed": {"gradient_checkpointing": True}, "compiled": {"compile": True}}
DENSE_BF16_PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
"""NVIDIA's data sheets, FLOP/s without sparsity; the first name that is part of the device's."""


@dataclasses.dataclass(frozen=True)
class Group:
    """One prompt and its completions, in tokens, and how many tokens a micro-batch may have."""

    name: str
    prompt: int
    completions: int
    length: int
    budget: int

    def trees(self, vocabulary: int) -> list[PromptTree]:
        """Random tokens, as micro-batches of one tree each."""
        draw = np.random.default_rng(0)

        def ids(num: int) -> Any:
            return draw.integers(0, vocabulary, num, dtype=np.int32)

        prompt, at_once = ids(self.prompt), (self.budget - self.prompt) // self.length
        ones = np.ones(self.length, np.float32)
        branches = [Branch(ids(self.length), -ones, ones * (-1) ** n, 1.0) for n in range(self.completions)]
        starts = range(0, self.completions, at_once)
        return [PromptTree(prompt, tuple(branches[start : start + at_once])) for start in starts]


GROUPS = (Group("16 x 2048", 256, 16, 2048, 8704), Group("4 x 8192", 256, 4, 8192, 8704))
SMALL_GROUPS = (Group("4 x 20", 8, 4, 20, 50), Group("2 x 40", 8, 2, 40, 50))


class Check:
    """What the parts share: the device, the scratch folder, whether all is small, and where rows go."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.small: bool = options.small
        self.scratch: Path = options.scratch
        self._rows: Path = options.rows

    def row(self, row: Row) -> None:
        """Written at once, since the process may be killed."""
        with self._rows.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def model_folder(self, size: str) -> Path:
        """A model of this size with random weights in bf16, made once for all parts."""
        folder = self.scratch / f"model_{size}"
        if not (folder / "config.json").exists():
            config = AutoConfig.for_model("qwen2", **(SMALL | {"vocab_size": 300} if self.small else SIZES[size]))
            with self.device:
                AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        return folder

    def policy(self, size: str, **model: Any) -> Policy:
        folder = self.model_folder(size)
        settings = PolicySettings(
            ModelSection(path=str(folder), **model),
            UpdateSection(lr=1e-6),
            RolloutSection(prompts_per_step=1, group_size=16, max_new_tokens=8192),
            steps=1000,
        )
        return Policy(folder, settings, SoleWorld(self.device), PhaseClock())


def device(check: Check) -> None:
    names = ("torch", "transformers", "peft", "triton", "numpy")
    check.row({"python": platform.python_version()} | {name: _version(name) for name in names})
    row: Row = {"device": _device_name(check.device), "attention": choose_attention("auto", check.device)}
    row |= {"missing for FlexAttention": missing_for_triton() or "nothing"}
    row |= {"bf16 products in fp32": keeps_fp32(check.device, torch.bfloat16)}
    if check.device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        row |= {"capability": str(torch.cuda.get_device_capability()), "free_gb": free / 1e9, "total_gb": total / 1e9}
    check.row(row)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu"


def tests(check: Check) -> None:
    """tests/gpu in this process, a row for each as it ends."""
    import pytest

    class Recorder:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.outcome != "passed":
                message = str(report.longrepr).strip().splitlines()[-1][:300] if report.failed else ""
                found = {"outcome": report.outcome, "seconds": round(report.duration, 2), "message": message}
                check.row({"test": report.nodeid} | found)

    root = Path(__file__).parents[2]
    code = pytest.main([str(root / "tests" / "gpu"), "--rootdir", str(root), "--tb=short"], plugins=[Recorder()])
    raise SystemExit(int(code))


def update(check: Check, size: str) -> None:
    for setting, changes in SETTINGS.items():
        groups = SMALL_GROUPS if check.small else GROUPS
        try:
            policy = check.policy(size, **changes)
        except UserError as error:
            check.row({"size": size, "shape": "", "setting": setting, "error": str(error)})
            continue
        for group in groups:
            named = {"size": size, "shape": group.name, "setting": setting}
            try:
                check.row(named | _measured(check, policy, group))
            except (RuntimeError, UserError) as error:  # out of memory, or what cannot be compiled: the next may do
                check.row(named | {"error": f"{type(error).__name__}: {str(error)[:200]}"})
                policy.optimiser.zero_grad(set_to_none=True)
        del policy
        if check.device.type == "cuda":
            torch.cuda.empty_cache()


def _measured(check: Check, policy: Policy, group: Group) -> Row:
    """Medians of three updates after a first one, and the phases of one more, in which each is waited for."""
    shape = ModelShape.of(model_config(Path(policy.settings.model.path)))
    trees = group.trees(shape.vocabulary)
    num_tokens = group.completions * group.length
    batch = Batch(tuple((tree,) for tree in trees), float(num_tokens), has_signal=True)
    first = check.timed(lambda: policy.update(batch))
    if check.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(check.timed(lambda: policy.update(batch)) for _ in range(3))
    peak = torch.cuda.max_memory_allocated() if check.device.type == "cuda" else None
    work = _flops(shape, trees)
    longest = max(trees, key=lambda tree: tree.num_tokens)
    predicted = sum(len(branch.token_ids) for branch in longest.branches)
    memory = trainer_memory(shape, policy.settings.model, longest.num_tokens, num_predicted=predicted)
    limit = _peak_flops(check.device)
    return {
        "tokens": num_tokens,
        "first_seconds": first,
        "seconds": seconds,
        "flops": work,
        "mfu": limit and work / seconds / limit,
        "peak_bytes": peak,
        "memory": dataclasses.asdict(memory) | {"total": memory.total},
    } | _phases(check, policy, batch)


def _phases(check: Check, policy: Policy, batch: Batch) -> Row:
    """Shares of one update: forward passes, the optimiser, and what lies between them, which is the backward passes
    with a little packing and the clipping of the gradient."""
    spent = {"forward": 0.0, "optimiser": 0.0}
    forward = policy.network.logprobs

    def watched(*arguments: Any, **options: Any) -> Any:
        found: list[Any] = []
        spent["forward"] += check.timed(lambda: found.append(forward(*arguments, **options)))
        return found[0]

    began = [0.0]

    def starts(*_: Any) -> None:
        check.wait()
        began[0] = time.perf_counter()

    def ends(*_: Any) -> None:
        check.wait()
        spent["optimiser"] += time.perf_counter() - began[0]

    hooks = [policy.optimiser.register_step_pre_hook(starts), policy.optimiser.register_step_post_hook(ends)]
    policy.network.logprobs = watched  # type: ignore[method-assign]
    try:
        total = check.timed(lambda: policy.update(batch))
    finally:
        policy.network.logprobs = forward  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()
    spent["backward"] = total - sum(spent.values())
    return {f"{phase}_frac": seconds / total for phase, seconds in spent.items()}


def _flops(shape: ModelShape, trees: list[PromptTree]) -> int:
    """6 for each weight that a token meets, 12 x layers x width of the queries for each pair of tokens that see each
    other: forward and backward pass, without what is computed a second time."""
    matrices = shape.layers * shape.layer_matrix_weights
    body = head = pairs = 0
    for tree in trees:
        prompt = len(tree.prompt_ids)
        inputs = [len(branch.token_ids) - 1 for branch in tree.branches]
        body += prompt + sum(inputs)
        head += sum(inputs) + len(inputs)
        pairs += prompt * (prompt + 1) // 2 + sum(own * prompt + own * (own + 1) // 2 for own in inputs)
    products = 6 * (matrices * body + shape.embedding_weights * head)
    return products + 12 * shape.layers * shape.query_width * pairs


def _peak_flops(device: torch.device) -> float | None:
    return next((peak for name, peak in DENSE_BF16_PEAKS.items() if name in _device_name(device)), None)


def flex(check: Check) -> None:
    """Graphs that torch compiled for 20 forests of different lengths; on a CPU the forward pass, without a kernel."""
    from torch._dynamo.utils import counters

    on_gpu = check.device.type == "cuda"
    times = []
    for shapes in _forests(20, 40 if check.small else 600):
        states = [
            torch.randn(1, heads, shapes[-1].stop, 64, device=check.device, dtype=torch.bfloat16, requires_grad=on_gpu)
            for heads in (4, 2, 2)
        ]
        backend = "inductor" if on_gpu else "aot_eager"

        def attend(shapes: list[TreeShape] = shapes, states: Any = states, backend: str = backend) -> None:
            output = FlexTreeAttention(shapes, check.device, backend)(*states, 0.125)
            if on_gpu:
                output.sum().backward()

        times.append(check.timed(attend))
    graphs = int(counters["stats"]["unique_graphs"])
    check.row({"lengths": len(times), "graphs": graphs, "limit": RECOMPILE_LIMIT})
    check.row({"first_s": times[0], "slowest_later_s": max(times[1:]), "median_s": statistics.median(times)})


def _forests(num: int, longest: int) -> Iterator[list[TreeShape]]:
    draw = np.random.default_rng(1)
    for number in range(num):
        shapes: list[TreeShape] = []
        for _ in range(1 + number % 3):
            prompt, *branches = (int(length) for length in draw.integers(1, longest, 5))
            shapes.append(TreeShape(shapes[-1].stop if shapes else 0, prompt, tuple(branches)))
        yield shapes


def export(check: Check) -> None:
    """The weights as the engine gets them, bf16, cast on the device, into memory where there is a folder of it."""
    memory = Path("/dev/shm")
    for size in SIZES:
        policy = check.policy(size)
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            policy.export(Path(folder))
            seconds = check.timed(lambda folder=folder, policy=policy: policy.export(Path(folder)))  # type: ignore[misc]
            size_bytes = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        check.row({"size": size, "gb": size_bytes / 1e9, "seconds": seconds, "gb_per_s": size_bytes / 1e9 / seconds})


PARTS: dict[str, Callable[[Check], None]] = {
    "device": device,
    "tests": tests,
    "update 0.5b": lambda check: update(check, "0.5b"),
    "update 1.5b": lambda check: update(check, "1.5b"),
    "flex": flex,
    "export": export,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    PARTS[options.part](Check(options))


if __name__ == "__main__":
    main()

"""What an export costs on the way: where weights are cast, and what the host holds of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small import CPU
from tiny import make_tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from grpo.model.lora import open_network
from grpo.model.network import Network
from grpo.policy.export import export_model
from grpo.recipe.sections import ModelSection


def network_of(folder: Path) -> Network:
    return open_network(folder, ModelSection(path=str(folder), compute="fp32"), CPU)


class Copies(TorchDispatchMode):
    """Notes the type of every tensor that is copied to the CPU by name, and of those that are copied into another."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: set[torch.dtype] = set()
        self.cast: set[tuple[torch.dtype, torch.dtype]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function is torch.ops.aten._to_copy.default:
            self.cast.add((args[0].dtype, result.dtype))
            if kwargs.get("device") is not None:
                self.moved.add(args[0].dtype)
        if function is torch.ops.aten.copy_.default:
            self.moved.add(args[1].dtype)
        return result


def test_weights_are_cast_where_they_lie_and_moved_in_the_engines_type(tiny_model: Path, tmp_path: Path) -> None:
    """Casting on the way out is done by the CPU, and fp32 crosses the bus."""
    network = network_of(tiny_model)
    with Copies() as copies:
        export_model(network, tmp_path, torch.bfloat16)
    assert copies.cast == {(torch.float32, torch.bfloat16)}
    assert copies.moved == {torch.bfloat16}


LARGE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 24, "vocab_size": 1024}
LARGE_SHARDS = 2**23
LARGE_EXPORT_BYTES = 2 * 24 * (3 * 512 * 2048 + 2 * 512 * 64 + 2 * 512 * 32)
"""Without the embeddings and the norms: 150 MiB in bf16, 18 shards."""


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure_export(folder: Path, results: Any) -> None:
    torch.set_num_threads(1)
    network = network_of(folder)
    with torch.no_grad():
        # Until it is used, a weight is only mapped from its file.
        assert sum(float(weight.sum()) for weight in network.trained)
    before = peak_bytes()
    export_model(network, folder / "out", torch.bfloat16, LARGE_SHARDS)
    results.put(peak_bytes() - before)


def in_a_process(job: Callable[..., None], *arguments: object) -> Any:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=job, args=(*arguments, results))
    process.start()
    result = results.get(timeout=120)
    process.join()
    return result


def test_an_export_holds_one_shard_and_not_a_second_model(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path, **LARGE)
    more = in_a_process(measure_export, folder)
    stored = sum(file.stat().st_size for file in (folder / "out").glob("*.safetensors"))
    assert stored > LARGE_EXPORT_BYTES
    assert more < 4 * LARGE_SHARDS

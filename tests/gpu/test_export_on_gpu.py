"""Weights that leave a GPU: cast there, through pinned memory, and byte for byte what a CPU writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import CPU, save_model

from grpo.model.lora import open_network
from grpo.policy.export import export_bytes, export_model, to_host
from grpo.recipe.sections import LoraSection, ModelSection

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

GPU = torch.device("cuda")


@pytest.mark.parametrize("shard_bytes", [2**14, 2**30], ids=["shards", "one file"])
def test_a_gpus_folder_is_a_cpus(shard_bytes: int, tmp_path: Path) -> None:
    """Rounding to bf16 is the same everywhere, so the files are the same to the byte."""
    save_model("qwen2", tmp_path / "model")
    for device in (CPU, GPU):
        network = open_network(tmp_path / "model", ModelSection(path=str(tmp_path / "model"), compute="fp32"), device)
        export_model(network, tmp_path / device.type, torch.bfloat16, shard_bytes)
    names = sorted(file.name for file in (tmp_path / "cpu").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "cuda").iterdir())
    for name in names:
        assert (tmp_path / "cuda" / name).read_bytes() == (tmp_path / "cpu" / name).read_bytes(), name


def test_adapters_are_merged_on_the_gpu(tmp_path: Path) -> None:
    save_model("qwen3", tmp_path / "model")
    section = ModelSection(path=str(tmp_path / "model"), compute="fp32", lora=LoraSection(rank=2))
    network = open_network(tmp_path / "model", section, GPU)
    export_model(network, tmp_path / "out", torch.bfloat16)
    assert {tensor.device.type for _, tensor in network.weights()} == {"cuda"}
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_copies_wait_in_pinned_memory() -> None:
    tensor = torch.arange(2**20, device=GPU, dtype=torch.float32)
    host = to_host(tensor)
    torch.cuda.synchronize()
    assert host.is_pinned()
    assert torch.equal(host, tensor.cpu())


def test_an_export_holds_no_second_model_on_the_gpu(tmp_path: Path) -> None:
    save_model("llama", tmp_path / "model")
    network = open_network(tmp_path / "model", ModelSection(path=str(tmp_path / "model"), compute="fp32"), GPU)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    export_model(network, tmp_path / "out", torch.bfloat16)
    assert torch.cuda.max_memory_allocated() - before < export_bytes(network, torch.bfloat16) / 2

"""What leaves the trainer: the folder's tensors, as transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small import ARCHITECTURES, CPU, save_model
from tiny import make_tiny_model
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from grpo.errors import UserError
from grpo.model.lora import open_network
from grpo.model.network import Network
from grpo.policy.export import export_bytes, export_model
from grpo.recipe.sections import LoraSection, ModelSection

SMALL_SHARDS = 2**14


def network_of(folder: Path, lora: LoraSection | None = None) -> Network:
    return open_network(folder, ModelSection(path=str(folder), compute="fp32", lora=lora), CPU)


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """A folder's model as transformers loads it, in the type that the folder names."""
    state: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    return state


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("shard_bytes", [2**30, SMALL_SHARDS], ids=["one file", "shards"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_transformers_loads_what_the_trainer_has(name: str, shard_bytes: int, tmp_path: Path) -> None:
    plain = save_model(name, tmp_path / "model")
    export_model(network_of(tmp_path / "model"), tmp_path / "out", torch.bfloat16, shard_bytes)
    assert_same(loaded(tmp_path / "out"), plain.bfloat16().state_dict())
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.dtype, config.architectures) == (torch.bfloat16, [type(plain).__name__])
    assert (tmp_path / "out" / "generation_config.json").is_file()


def test_shards_are_as_large_as_they_may_be_and_listed(tmp_path: Path) -> None:
    """Of 21 tensors the two ends, 61 x 32 in bf16, take 3,904 bytes; a shard of 4,000 holds no other beside one."""
    save_model("llama", tmp_path / "model")
    network = network_of(tmp_path / "model")
    export_model(network, tmp_path / "out", torch.bfloat16, shard_bytes=4000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    held = {file.name: load_file(file) for file in files}
    assert {name: file for file, tensors in held.items() for name in tensors} == index["weight_map"]
    sizes = {file: sum(tensor.nbytes for tensor in tensors.values()) for file, tensors in held.items()}
    assert index["metadata"]["total_size"] == sum(sizes.values()) == export_bytes(network, torch.bfloat16)
    assert all(size <= 4000 for file, size in sizes.items() if len(held[file]) > 1)
    assert len(files) < len(index["weight_map"]), "small tensors share a file"


def test_a_small_model_is_one_file_without_an_index(tiny_model: Path, tmp_path: Path) -> None:
    export_model(network_of(tiny_model), tmp_path, torch.float32)
    assert [file.name for file in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("tied", [True, False])
def test_tied_tensors_are_written_once(tied: bool, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", tie_word_embeddings=tied)
    network = network_of(folder)
    export_model(network, tmp_path / "out", torch.float32, SMALL_SHARDS)
    weight_map = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    assert "model.embed_tokens.weight" in weight_map
    assert ("lm_head.weight" in weight_map) is not tied
    assert_same(loaded(tmp_path / "out"), dict(network.model.state_dict()))


def test_adapters_are_merged_in_full_precision_before_the_cast(tiny_model: Path, tmp_path: Path) -> None:
    network = network_of(tiny_model, LoraSection(rank=2, targets=["q_proj"]))
    with torch.no_grad():
        for parameter in network.trained:
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    export_model(network, tmp_path, torch.bfloat16, SMALL_SHARDS)
    merged = {name: tensor.bfloat16() for name, tensor in network.weights()}
    assert_same(loaded(tmp_path), merged)
    assert not torch.equal(merged[Q_PROJ], loaded(tiny_model)[Q_PROJ].bfloat16())


Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def test_experts_leave_under_the_names_of_the_models_files(tmp_path: Path) -> None:
    """transformers holds all experts of a layer in one tensor; the files that others load have one for each."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    config = Qwen3MoeConfig(vocab_size=61, num_experts=4, num_experts_per_tok=2, **sizes, **heads)
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "model")
    network = network_of(tmp_path / "model")
    export_model(network, tmp_path / "out", torch.float32, SMALL_SHARDS)
    stored: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "out").glob("*.safetensors"):
        stored |= load_file(file)
    assert_same(stored, load_file(tmp_path / "model" / "model.safetensors"))
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in stored


def test_a_model_whose_files_join_tensors_is_refused_before_anything_is_written(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of vision models whose files hold queries, keys and values in one tensor."""

    def join(model: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        gates = [name for name in tensors if name.endswith((".gate_proj.weight", ".up_proj.weight"))]
        rest = {name: tensor for name, tensor in tensors.items() if name not in gates}
        return rest | ({"gate_up": torch.cat([tensors[name] for name in gates])} if gates else {})

    monkeypatch.setattr("grpo.policy.export.revert_weight_conversion", join)
    with pytest.raises(UserError, match="its files join tensors that transformers holds apart"):
        export_model(network_of(tiny_model), tmp_path / "out", torch.float32)
    assert not list((tmp_path / "out").glob("*.safetensors"))

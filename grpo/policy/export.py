"""The way out of the trainer: weights as a Hugging Face folder, for the engine and for checkpoints.

Each tensor is cast where it lies, so that only what is written crosses to host memory, and goes through pinned memory
where that is a GPU's. The folder is in shards, transformers' own layout for large models: a shard is written as soon as
its tensors are there, and so the host never holds more than one (or one tensor, where that is larger). Nothing here
knows the format of the files: safetensors writes them, huggingface_hub plans them, and transformers gives the tensors
the names that a model's files have (of fused experts, the single ones).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import StateDictSplit, split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from grpo.errors import UserError
from grpo.model.network import Network

SHARD_BYTES = 2**29
"""The largest file with more than one tensor in it: small beside a host's memory, and a 7B model has 30 of them."""


def export_model(network: Network, folder: Path, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a network's weights in `dtype`, with its config, as a folder that transformers and vLLM load.

    Of tensors that share their memory one is written, as in any Hugging Face folder. Raises UserError for a model whose
    files join tensors that transformers holds apart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = split_torch_state_dict_into_shards(_stored_tensors(network, dtype), max_shard_size=shard_bytes)
    waiting: dict[str, dict[str, Tensor]] = {file: {} for file in shards.filename_to_tensors}
    for name, tensor in _cast_tensors(network, dtype):
        file = shards.tensor_to_filename[name]
        waiting[file][name] = to_host(tensor)
        if len(waiting[file]) == len(shards.filename_to_tensors[file]):
            _finish_copies(tensor.device)
            save_file(waiting.pop(file), folder / file, metadata={"format": "pt"})
    _write_index(shards, folder)
    _write_config(network.model, folder, dtype)


def export_bytes(network: Network, dtype: torch.dtype) -> int:
    """What the tensors take that `export_model` writes."""
    return sum(tensor.nbytes for tensor in _stored_tensors(network, dtype).values())


def to_host(tensor: Tensor) -> Tensor:
    """A copy in host memory. Of a GPU's tensor it is in pinned memory, and on its way: wait for it before reading."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return host.copy_(tensor, non_blocking=True)


def _finish_copies(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _stored_tensors(network: Network, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors that the folder is to have, in the order in which they come: shapes and types, without values."""
    empty = {
        name: torch.empty(shape, dtype=dtype, device="meta")
        for name, shape in network.weight_shapes().items()
        if name not in network.model.all_tied_weights_keys
    }
    stored = {
        stored_name: part
        for name, tensor in empty.items()
        for stored_name, part in revert_weight_conversion(network.model, {name: tensor}).items()
    }
    at_once = revert_weight_conversion(network.model, empty)
    if _shapes(stored) != _shapes(at_once):
        raise UserError(
            f"model.path={network.model.config.name_or_path}: its files join tensors that transformers holds apart, so "
            "that its weights cannot be written one by one; choose another model"
        )
    return stored


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _cast_tensors(network: Network, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """What the folder is to have, tensor by tensor, cast on the network's own device."""
    for name, tensor in network.weights():
        if name not in network.model.all_tied_weights_keys:
            yield from revert_weight_conversion(network.model, {name: tensor.detach().to(dtype)}).items()


def _write_index(shards: StateDictSplit, folder: Path) -> None:
    """Which file has which tensor, where there are several files."""
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2))


def _write_config(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """The model's config, which names the type of the tensors beside it and not that of the trainer's own."""
    config = copy.deepcopy(model.config)
    config.dtype = dtype
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)

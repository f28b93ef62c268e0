"""Training adapters in place of weights: LoRA (arXiv 2106.09685) by peft.

A layer computes W x + (alpha / rank) B A x. W is frozen; A and B, in fp32, are all that is trained, and B is zero at
first, so that training starts from the very model. Wherever the model leaves the trainer it leaves as ordinary
weights, W + (alpha / rank) B A, so that neither the engine nor who loads a checkpoint has to know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from grpo.batching.pack import Packed
from grpo.errors import UserError
from grpo.model.files import EMBEDDED
from grpo.model.network import Network, Reference, rms
from grpo.recipe.sections import ALL_LINEAR, LoraSection, ModelSection

POLICY = "default"
"""peft's own name for the only adapter: it keeps it in the folder itself, not in one below."""
REFERENCE = "reference"
FIRST_SEED = 0
"""Of A's first values, which must be the same on all ranks."""


def open_network(folder: Path, settings: ModelSection, device: torch.device) -> Network:
    """The policy's network: trained whole, in fp32, or by its adapters alone."""
    if settings.lora:
        return AdaptedNetwork(folder, settings, settings.lora, device)
    return Network(folder, settings, torch.float32, device)


class AdaptedNetwork(Network):
    """A frozen model with trained adapters.

    Where the update computes in bf16 and the model's files are in bf16, its matrices are held as they are: their
    copies in fp32 would be rounded to the same values in every product, and take twice the memory. A model stored
    in another type is held in fp32, since what leaves the trainer is made from these weights.
    """

    def __init__(self, folder: Path, settings: ModelSection, lora: LoraSection, device: torch.device) -> None:
        peft = _peft()
        targeted(folder, lora)
        super().__init__(folder, settings, _held_type(folder, settings), device)
        self._config = peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=ALL_LINEAR if ALL_LINEAR in lora.targets else list(lora.targets),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(FIRST_SEED)
            self._peft = peft.get_peft_model(self.model, self._config, POLICY)
        self._config.base_model_name_or_path = str(folder) if settings.path == EMBEDDED else settings.path
        modules = self.model.named_modules()
        self._layers: dict[str, Any] = {name: one for name, one in modules if isinstance(one, peft.tuners.lora.Linear)}
        for layer in self._layers.values():
            # Autocast chooses the type already.
            layer.cast_input_dtype_enabled = False

    def reference(self, moves: bool) -> Reference:
        """No second model: the base with its adapters off, or with a frozen copy of them."""
        if not moves:
            return _AdaptersOff(self, self._peft)
        self._peft.add_adapter(REFERENCE, self._config)
        self._peft.set_adapter(POLICY)
        return _FrozenAdapters(self, self._peft)

    def adapter(self, name: str) -> dict[str, torch.nn.Parameter]:
        """One adapter's weights."""
        parts = ("lora_A", "lora_B")
        return {f"{at}.{part}": getattr(one, part)[name].weight for at, one in self._layers.items() for part in parts}

    def load_adapter(self, name: str, state: dict[str, Tensor]) -> None:
        """Take over the values of an adapter. Raises KeyError where one is missing."""
        with torch.no_grad():
            for key, parameter in self.adapter(name).items():
                parameter.copy_(state[key])

    def state_dict(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.adapter(POLICY).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.load_adapter(POLICY, state)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Merged one by one, in fp32, aside: merging in place and undoing it would round the base."""
        for name, tensor in self.model.state_dict().items():
            if _is_adapters(name):
                continue
            layer, _, kind = name.partition(".base_layer.")
            if kind == "weight":
                with torch.no_grad():
                    tensor = tensor.float() + self._layers[layer].get_delta_weight(POLICY)
            yield _plain_name(name), tensor

    def weight_shapes(self) -> dict[str, torch.Size]:
        shapes = super().weight_shapes()
        return {_plain_name(name): shape for name, shape in shapes.items() if not _is_adapters(name)}

    def save_adapters(self, folder: Path) -> None:
        """Write the adapters as peft loads them."""
        self._peft.save_pretrained(folder, selected_adapters=[POLICY], save_embedding_layers=False)

    def _noise_sizes(self) -> list[tuple[torch.nn.Parameter, Tensor]]:
        """Both parts of an adapted weight bring half of its noise, so that neither can stay behind unseen."""
        layers = {id(layer.get_base_layer().weight): layer for layer in self._layers.values()}
        sizes = []
        for parameter, size in super()._noise_sizes():
            if layer := layers.get(id(parameter)):
                size = size / math.sqrt(2)
                gain = layer.scaling[POLICY] * math.sqrt(layer.r[POLICY]) * rms(layer.lora_A[POLICY].weight)
                sizes.append((layer.lora_B[POLICY].weight, size / gain))
            sizes.append((parameter, size))
        return sizes

    def _whole(self) -> list[torch.nn.Parameter]:
        return [parameter for name, parameter in self.model.named_parameters() if not _is_adapters(name)]


class _AdaptersOff:
    """The model that training began with."""

    def __init__(self, network: AdaptedNetwork, peft_model: Any) -> None:
        self._network = network
        self._peft = peft_model

    def logprobs(self, packed: Packed, temperature: float, *, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        with self._peft.disable_adapter():
            return self._network.logprobs(packed, temperature, entropy=entropy)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        raise ValueError("a reference without adapters of its own cannot move")


class _FrozenAdapters:
    """The policy of an earlier step; before there is one, the model that training began with."""

    def __init__(self, network: AdaptedNetwork, peft_model: Any) -> None:
        self._network = network
        self._peft = peft_model

    def logprobs(self, packed: Packed, temperature: float, *, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        self._peft.set_adapter(REFERENCE, inference_mode=True)
        try:
            return self._network.logprobs(packed, temperature, entropy=entropy)
        finally:
            self._peft.set_adapter(POLICY)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self._network.adapter(REFERENCE).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._network.load_adapter(REFERENCE, state)


def targeted(folder: Path, lora: LoraSection) -> dict[str, Any]:
    """The layers that get adapters, by name, from the model's config alone: they have shapes and no weights.

    Raises UserError for a name that none of the layers has, and where peft is missing.
    """
    _peft()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    head = model.get_output_embeddings()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }
    if ALL_LINEAR in lora.targets:
        return layers
    known = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
    for target in lora.targets:
        if not any(_is_called(name, target) for name in layers):
            raise UserError(
                f"model.lora.targets={target}: no linear layer of {folder} that may be adapted is called so; choose of "
                f"{known}, or set {ALL_LINEAR}"
            )
    return {name: module for name, module in layers.items() if any(_is_called(name, one) for one in lora.targets)}


def num_adapter_weights(folder: Path, lora: LoraSection) -> int:
    """Weights in the adapters of a model. Raises UserError as `targeted` does."""
    return sum(lora.rank * sum(layer.weight.shape) for layer in targeted(folder, lora).values())


def _held_type(folder: Path, settings: ModelSection) -> torch.dtype:
    stored = AutoConfig.from_pretrained(folder).dtype
    return torch.bfloat16 if settings.compute == "bf16" and stored is torch.bfloat16 else torch.float32


def _is_called(name: str, target: str) -> bool:
    """As peft matches: by the whole name or by its end."""
    return name == target or name.endswith(f".{target}")


def _is_adapters(name: str) -> bool:
    return ".lora_" in name


def _plain_name(name: str) -> str:
    """What a weight is called in a model without adapters."""
    return name.replace(".base_layer.", ".", 1)


def _peft() -> Any:
    """The library, which nothing else needs."""
    try:
        import peft
    except ImportError:
        raise UserError(
            "model.lora: peft is not installed; run launch/setup.sh, or pip install --no-deps peft==0.21.2"
        ) from None
    return peft

"""A causal language model as the update computes it: prompt trees in, log-probs of their completions out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from grpo.batching.pack import Packed
from grpo.model.attention.register import TREE_ATTENTION, choose_attention, make_tree_attention
from grpo.model.compilation import compile_options
from grpo.model.logprobs import token_logprobs
from grpo.recipe.sections import ModelSection

PERTURBATION = 0.05
EMBEDDING_PERTURBATION = 0.2
"""Size of the noise of `Network.perturbed`, relative to each tensor's own. Deep inside a model a larger one is
amplified, with both sides' rounding, until it drowns what it is to show; at its ends it is not."""


class Reference(Protocol):
    """The frozen policy that the KL is taken to."""

    def logprobs(self, packed: Packed, temperature: float, *, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        """As `Network.logprobs`."""

    def state_dict(self) -> dict[str, Tensor]:
        """What makes it differ from the model's files."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Become what a `state_dict` says, its own or that of the network that it is the reference of."""


class Network:
    """A model, and the type that it computes in.

    Under autocast the products of matrices are in bf16 and what flows between them in fp32, whatever type the weights
    are held in: matrices held in bf16 give the log-probs that the same values give in fp32.
    """

    def __init__(self, folder: Path, settings: ModelSection, dtype: torch.dtype, device: torch.device) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=TREE_ATTENTION)
        if dtype is not torch.float32:
            _widen(self.model)
        self.model.to(device).eval()
        self._folder = folder
        self._settings = settings
        self._device = device
        self._autocasts = settings.compute == "bf16"
        self.attention = choose_attention(settings.attention, device)

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """The weights that the optimiser moves."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def recompute_activations(self) -> None:
        """Hold less memory in the backward pass, for a second forward pass."""
        # transformers recomputes activations in training mode only; elsewhere that mode adds nothing but dropout.
        self.model.train()
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def compile_layers(self) -> None:
        """Fuse what each layer computes beside its large products; their shapes may change from call to call."""
        for layer in self.model.base_model.layers:
            layer.compile(dynamic=True, **compile_options())

    def logprobs(self, packed: Packed, temperature: float, *, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        """Log-probs and, where asked for, entropies of the completion tokens, both (N,), in nats.

        On a GPU nothing here waits for the device.
        """
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocasts):
            hidden = self.model.base_model(
                input_ids=packed.token_ids,
                position_ids=packed.position_ids,
                use_cache=False,
                tree_attention=make_tree_attention(packed.shapes, self._device, self.attention),
            ).last_hidden_state[0]
            head = self.model.get_output_embeddings()
            return token_logprobs(
                hidden[packed.predictors],
                packed.targets,
                head,
                temperature,
                entropy=entropy,
                precision=self._settings.head,
            )

    def reference(self, moves: bool) -> Reference:
        """What the model's files hold, frozen. `moves`: it is to become the policy of a later step now and then."""
        dtype = torch.bfloat16 if self._autocasts else torch.float32
        network = Network(self._folder, self._settings, dtype, self._device)
        network.model.requires_grad_(False)
        return network

    def state_dict(self) -> dict[str, Tensor]:
        """What training moves."""
        state: dict[str, Tensor] = self.model.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        self.model.load_state_dict(state)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights of the model that this computes, under the names that Hugging Face has for them."""
        yield from self.model.state_dict().items()

    def weight_shapes(self) -> dict[str, torch.Size]:
        """Names and shapes of what `weights` yields, in the same order."""
        return {name: tensor.shape for name, tensor in self.model.state_dict().items()}

    def save_adapters(self, folder: Path) -> None:
        """Nothing: there are none."""

    @contextlib.contextmanager
    def perturbed(self) -> Iterator[None]:
        """Inside, every weight is moved by noise; after, all are back, to the bit."""
        sizes = self._noise_sizes()
        kept = [parameter.detach().to("cpu", copy=True) for parameter, _ in sizes]
        noise = torch.Generator(device=self._device).manual_seed(0)
        try:
            with torch.no_grad():
                for parameter, size in sizes:
                    parameter.add_(torch.randn(parameter.shape, generator=noise, device=parameter.device) * size)
            yield
        finally:
            with torch.no_grad():
                for (parameter, _), value in zip(sizes, kept, strict=True):
                    parameter.copy_(value)

    def _noise_sizes(self) -> list[tuple[torch.nn.Parameter, Tensor]]:
        """What `perturbed` moves, and the deviation of each one's noise."""
        ends = (self.model.get_input_embeddings().weight, self.model.get_output_embeddings().weight)
        return [
            (one, rms(one) * (EMBEDDING_PERTURBATION if any(one is end for end in ends) else PERTURBATION))
            for one in self._whole()
        ]

    def _whole(self) -> list[torch.nn.Parameter]:
        """The weights that the model's files have."""
        return list(self.model.parameters())


def rms(values: Tensor) -> Tensor:
    """The root of the mean square."""
    return values.detach().float().square().mean().sqrt()


def _widen(model: Any) -> None:
    """Norms and the sums between layers in fp32, as in a model that is held in it."""
    for parameter in model.parameters():
        if parameter.dim() < 2:
            parameter.data = parameter.data.float()
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.float())

"""The sum of a trainer's memory against what torch holds, byte for byte where torch tells, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import ARCHITECTURES
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from grpo.model.attention.register import TREE_ATTENTION
from grpo.model.memory import (
    ModelShape,
    activation_bytes,
    engine_memory,
    layer_bytes,
    logits_bytes,
    trainer_memory,
)
from grpo.policy.optimiser import make_optimiser
from grpo.recipe.sections import LoraSection, ModelSection, UpdateSection

QWEN_1_5B = {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
BF16, FP32 = ModelSection(path="x"), ModelSection(path="x", compute="fp32")


# Weights


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_weight_is_counted(name: str) -> None:
    kind, config = ARCHITECTURES[name]
    assert ModelShape.of(config.to_dict()).weights == sum(one.numel() for one in kind(config).parameters())


@pytest.mark.parametrize(
    "changes", [{"tie_word_embeddings": True}, {"attention_bias": True}, {"head_dim": 16}], ids=str
)
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_what_a_config_may_say_is_counted(name: str, changes: dict[str, Any]) -> None:
    kind, config = ARCHITECTURES[name]
    changed = type(config)(**(config.to_dict() | changes))
    assert ModelShape.of(changed.to_dict()).weights == sum(one.numel() for one in kind(changed).parameters())


def test_a_known_model() -> None:
    """Qwen2.5-1.5B: 151,936 x 1,536 embeddings; a layer of 46,797,824; 1,536 in the last norm."""
    # Matrices: 1536 x (1536 + 2 x 256) + 1536 x 1536 + 3 x 1536 x 8960 = 46,792,704. Biases: 1536 + 2 x 256 = 2,048.
    # Norms: 2 x 1536 = 3,072.
    shape = ModelShape.of(QWEN_1_5B)
    assert shape.layer_matrix_weights == 46_792_704
    assert shape.layer_vector_weights == 5_120
    assert shape.weights == 151_936 * 1_536 + 28 * 46_797_824 + 1_536 == 1_543_714_304


# What torch holds


def handed_on(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """In place of FlexAttention, which a CPU cannot go backward through: keeps what that keeps."""
    output: Tensor = _KeepsAsFlexAttention.apply(queries.to(values.dtype), keys.to(values.dtype), values)  # type: ignore[no-untyped-call]
    return output


class _KeepsAsFlexAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        output = queries.clone()
        ctx.save_for_backward(queries, keys, values, output, torch.zeros(queries.shape[:3]))
        return output.transpose(1, 2)


def saved_bytes(name: str, compute: str, num_layers: int, num_tokens: int) -> int:
    """What autograd keeps for the backward pass of a model without its head, weights not counted."""
    config = AutoConfig.for_model(
        name,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        vocab_size=200,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=TREE_ATTENTION)
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(one: Tensor) -> Tensor:
        kept[one.untyped_storage().data_ptr()] = one
        return one

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one),
        torch.autocast("cpu", torch.bfloat16, enabled=compute == "bf16"),
    ):
        model.base_model(
            input_ids=torch.zeros(1, num_tokens, dtype=torch.long),
            position_ids=torch.arange(num_tokens)[None],
            use_cache=False,
            tree_attention=handed_on,
        )
    return sum(one.untyped_storage().nbytes() for at, one in kept.items() if at not in weights)


@pytest.mark.parametrize("compute", ["bf16", "fp32"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_activations_are_what_autograd_keeps(name: str, compute: str) -> None:
    """To the byte: of a token, and of the matrices that autocast has copied."""
    settings = BF16 if compute == "bf16" else FP32
    shape = shape_of_saved(name)
    two, three = (saved_bytes(name, compute, 2, length) for length in (64, 96))
    assert three - two == 32 * activation_bytes(shape, settings)
    copies = 2 * 2 * shape.layer_matrix_weights if compute == "bf16" else 0
    assert two == 64 * activation_bytes(shape, settings) + copies


def shape_of_saved(name: str) -> ModelShape:
    sizes = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2, "num_attention_heads": 4}
    return ModelShape.of(sizes | {"num_key_value_heads": 2, "head_dim": 32, "vocab_size": 200, "model_type": name})


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma"])
def test_gradients_and_moments_are_what_torch_holds(name: str) -> None:
    kind, config = ARCHITECTURES[name]
    model = kind(config)
    parameters = list(model.parameters())
    optimiser = make_optimiser(parameters, UpdateSection(lr=1e-3))
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    moments = [one for state in optimiser.state.values() for key, one in state.items() if key.startswith("exp_avg")]
    found = trainer_memory(ModelShape.of(config.to_dict()), FP32, 1)
    assert found.weights == sum(one.nbytes for one in parameters)
    assert found.gradients == sum(one.grad.nbytes for one in parameters if one.grad is not None)
    assert found.optimiser == sum(one.nbytes for one in moments)


# By hand


def test_a_token_by_hand() -> None:
    """A llama of D = 4, one head of 4, I = 8, in bf16."""
    sizes = {"hidden_size": 4, "intermediate_size": 8, "num_attention_heads": 1, "vocab_size": 10}
    shape = ModelShape.of(sizes | {"num_hidden_layers": 3})
    # Two norms of (4 + 4) x 4 + 4; five inputs of 4 x 2; q, k, v and output of 4 x 2 each and 4 for the sum;
    # gate, its activation, up and their product of 8 x 2.
    assert layer_bytes(shape, BF16) == 2 * 36 + 40 + 36 + 64
    # Three such layers, the id, 2 x 4 sines and cosines in fp32, and the last norm.
    assert activation_bytes(shape, BF16) == 3 * 212 + 8 + 32 + 36
    # Or the inputs of three layers, 4 x 4, and one layer's whole set.
    recomputed = BF16.model_copy(update={"gradient_checkpointing": True})
    assert activation_bytes(shape, recomputed) == 3 * 16 + 212 + 8 + 32 + 36
    # 7 rows of 10 logits in fp32 wait, and as many stand beside two copies; 7 states in fp32 and twice in bf16.
    assert logits_bytes(shape, BF16, 7) == 4 * 7 * 40 + 7 * 4 * 8
    # A chunk is 512 rows, 20,480 bytes; of them 13,107 are no more than 256 MiB.
    assert logits_bytes(shape, BF16, 2**24) == (13_107 + 3) * 20_480 + 2**24 * 4 * 8
    # With the head in fp32 its states are too, and it has no copy.
    in_fp32 = BF16.model_copy(update={"head": "fp32"})
    assert logits_bytes(shape, in_fp32, 7) == 4 * 7 * 40 + 7 * 4 * 12
    copies = [trainer_memory(shape, one, 7).compute_copies for one in (BF16, in_fp32)]
    assert copies[0] - copies[1] == 2 * 10 * 4


def test_a_real_model_by_hand() -> None:
    """1.5B of weights on a GPU of 40 GB beside an engine that has 40 % of it: over, before any activation."""
    found = trainer_memory(ModelShape.of(QWEN_1_5B), BF16, 4096)
    assert (found.weights, found.gradients, found.optimiser) == (6_174_857_216, 6_174_857_216, 12_349_714_432)
    # Two bytes for each of 28 x 46,792,704 + 151,936 x 1,536; four for each of the head's gradient.
    assert found.compute_copies == 3_087_138_816
    assert found.head_gradient == 933_494_784
    assert found.before_activations + engine_memory(40 * 10**9, 0.4) == 44_720_062_464
    assert found.total == found.before_activations + found.activations + found.logits


def test_a_reference_is_a_second_model() -> None:
    shape = ModelShape.of(QWEN_1_5B)
    assert trainer_memory(shape, BF16, 1).reference == 0
    assert trainer_memory(shape, BF16, 1, kl=True).reference == 2 * shape.weights
    assert trainer_memory(shape, FP32, 1, kl=True).reference == 4 * shape.weights
    with_adapters = ModelSection(path="x", lora=LoraSection())
    assert trainer_memory(shape, with_adapters, 1, kl=True).reference == 0


def test_adapters_by_hand() -> None:
    """Rank 4 beside q (1536 to 1536) and v (1536 to 256) of 28 layers; the model is held in bf16."""
    shape = ModelShape.of(QWEN_1_5B)
    settings = ModelSection(path="x", lora=LoraSection(rank=4, targets=("q_proj", "v_proj")))
    trained = 28 * 4 * (3_072 + 1_792)
    found = trainer_memory(shape, settings, 1)
    assert (found.gradients, found.optimiser) == (4 * trained, 8 * trained)
    assert found.weights == 4 * trained + 2 * shape.weights
    assert (found.compute_copies, found.head_gradient) == (0, 0)
    everywhere = ModelSection(path="x", lora=LoraSection(rank=4))
    assert trainer_memory(shape, everywhere, 1).gradients == 4 * 28 * 4 * (
        3_072 + 1_792 + 1_792 + 3_072 + 3 * (1_536 + 8_960)
    )

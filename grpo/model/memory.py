"""How much GPU memory a trainer needs, from a model's config alone: a sum, made before anything is loaded.

The sum is of what this trainer holds (fp32 weights, bf16 autocast, a chunked output head), on one GPU, for decoder
models of Llama's kind. Activations are counted as torch's autograd saves them in layers that are not compiled;
compiling saves fewer. What is left out: a CUDA context (about 0.5 GiB) and the allocator's fragments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from grpo.model.logprobs import CHUNK_TOKENS, MAX_SAVED_LOGIT_BYTES
from grpo.recipe.sections import ALL_LINEAR, LoraSection, ModelSection

BF16, FP32, INT64 = 2, 4, 8
"""Bytes of a number."""
_TIED_UNLESS_SAID = ("gemma", "gemma2", "gemma3_text")
"""Models whose input and output embeddings are one tensor where their config does not say."""
_HEAD_DIMS = {"gemma": 256, "gemma2": 256, "gemma3_text": 256, "qwen3": 128}
"""Widths of an attention head where the config does not say; else hidden size / heads."""


@dataclass(frozen=True)
class ModelShape:
    """What a config says of a decoder model's size. Weights are counted exactly for llama, qwen2, qwen3, gemma and
    gemma3_text; any other model is taken for a llama."""

    hidden: int
    """D: width of what flows between layers."""
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """I: width inside the MLP."""
    vocabulary: int
    tied: bool
    """Input and output embeddings are one tensor."""
    qkv_bias: bool
    output_bias: bool
    qk_norm: bool
    """Queries and keys are normalised head by head."""
    norms_per_layer: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape:
        """Read a config.json. Raises KeyError where it lacks a size."""
        kind = str(config.get("model_type", "llama"))
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        return cls(
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or _HEAD_DIMS.get(kind, hidden // heads)),
            intermediate=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", kind in _TIED_UNLESS_SAID)),
            qkv_bias=kind == "qwen2" or bool(config.get("attention_bias", False)),
            output_bias=kind != "qwen2" and bool(config.get("attention_bias", False)),
            qk_norm=kind in ("qwen3", "gemma3_text"),
            norms_per_layer=4 if kind in ("gemma2", "gemma3_text") else 2,
        )

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of one layer's matrices, by the names that LoRA's targets go by."""
        return {
            "q_proj": (self.hidden, self.query_width),
            "k_proj": (self.hidden, self.kv_width),
            "v_proj": (self.hidden, self.kv_width),
            "o_proj": (self.query_width, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def layer_matrix_weights(self) -> int:
        return sum(rows * columns for rows, columns in self.layer_matrices.values())

    @property
    def layer_vector_weights(self) -> int:
        """Biases and the gains of norms."""
        biases = self.qkv_bias * (self.query_width + 2 * self.kv_width) + self.output_bias * self.hidden
        return biases + self.norms_per_layer * self.hidden + self.qk_norm * 2 * self.head_dim

    @property
    def embedding_weights(self) -> int:
        """V x D: the input embeddings, and as many again in an output head of its own."""
        return self.vocabulary * self.hidden

    @property
    def weights(self) -> int:
        """P: all weights of the model."""
        in_layers = self.layers * (self.layer_matrix_weights + self.layer_vector_weights)
        return in_layers + self.hidden + self.embedding_weights * (1 if self.tied else 2)

    def adapter_weights(self, lora: LoraSection) -> int:
        """Weights of LoRA's adapters: rank x (inputs + outputs) of each matrix that has one."""
        chosen = [
            sum(size)
            for name, size in self.layer_matrices.items()
            if ALL_LINEAR in lora.targets or name in lora.targets
        ]
        return self.layers * lora.rank * sum(chosen)


@dataclass(frozen=True)
class TrainerMemory:
    """Bytes on one GPU at the fullest moment of an update, by what they are for."""

    weights: int
    gradients: int
    optimiser: int
    """AdamW's two moments."""
    reference: int
    """The model that the KL is taken to."""
    compute_copies: int
    """The matrices in bf16, the output head's too: autocast makes them in every forward pass, and the backward pass
    needs them."""
    head_gradient: int
    """The output head's, in fp32, of the micro-batch that is computed: it is added to `gradients` last, together with
    that of the input embeddings."""
    activations: int
    logits: int
    """Logits that wait for the backward pass, a chunk of them with what is made of it, and the hidden states."""

    @property
    def before_activations(self) -> int:
        """What a model of this size needs however short its micro-batches are."""
        return self.total - self.activations - self.logits

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def trainer_memory(
    shape: ModelShape, settings: ModelSection, num_tokens: int, *, num_predicted: int | None = None, kl: bool = False
) -> TrainerMemory:
    """The sum for micro-batches of `num_tokens` packed tokens, `num_predicted` of which meet the output head (None:
    all), from the second one of a step on, when there are gradients.

    `kl`: a reference model is held; with LoRA it is the model itself, its adapters off. A model that gets adapters is
    taken to be stored in bf16, and its activations for those of full training, which they are but for the adapters'.
    """
    trained = shape.adapter_weights(settings.lora) if settings.lora else shape.weights
    frozen = shape.weights if settings.lora else 0
    compute = _compute_bytes(settings)
    return TrainerMemory(
        weights=FP32 * trained + compute * frozen,
        gradients=FP32 * trained,
        optimiser=2 * FP32 * trained,
        reference=compute * shape.weights if kl and not settings.lora else 0,
        compute_copies=_compute_copies(shape, settings),
        head_gradient=0 if settings.lora else FP32 * shape.embedding_weights,
        activations=num_tokens * activation_bytes(shape, settings),
        logits=logits_bytes(shape, settings, num_tokens if num_predicted is None else num_predicted),
    )


def activation_bytes(shape: ModelShape, settings: ModelSection) -> int:
    """Bytes that all layers keep of one token for the backward pass.

    When activations are recomputed, that is each layer's input in fp32, and one layer's whole set at a time. Beside
    the layers stand the token's id, the sines and cosines of its position, and the last norm.
    """
    beside = INT64 + 2 * FP32 * shape.head_dim + _norm_bytes(shape.hidden)
    if settings.gradient_checkpointing:
        return beside + shape.layers * FP32 * shape.hidden + layer_bytes(shape, settings)
    return beside + shape.layers * layer_bytes(shape, settings)


def layer_bytes(shape: ModelShape, settings: ModelSection) -> int:
    """Bytes that autograd keeps of one token in one layer, operation by operation.

    Matrices keep their input in the type of the products; autocast casts it anew for each of the five that read a
    norm's output, and without autocast the three of the attention share one, and the two of the MLP another. Attention
    keeps queries, keys, values, outputs (which are the output matrix's input) and the log of each sum. The MLP keeps
    the gate, its activation, the other half and their product.
    """
    compute = _compute_bytes(settings)
    inputs = (5 if settings.compute == "bf16" else 2) * compute * shape.hidden
    attention = 2 * compute * (shape.query_width + shape.kv_width) + FP32 * shape.heads
    mlp = 4 * compute * shape.intermediate
    return (
        shape.norms_per_layer * _norm_bytes(shape.hidden) + _head_norm_bytes(shape, compute) + inputs + attention + mlp
    )


def _norm_bytes(width: int) -> int:
    """A norm in fp32: its input, what it has normalised, and one over the root."""
    return 2 * FP32 * width + FP32


def _head_norm_bytes(shape: ModelShape, compute: int) -> int:
    """Norms of queries and keys, head by head, which cast what they have normalised back."""
    width, heads = shape.query_width + shape.kv_width, shape.heads + shape.kv_heads
    return ((FP32 + compute) * width + FP32 * heads) if shape.qk_norm else 0


def logits_bytes(shape: ModelShape, settings: ModelSection, num_predicted: int) -> int:
    """The output head at work on a GPU: whole chunks of logits that wait, one beside two copies (its probabilities and
    its gradient), all in fp32, and the hidden states that predict, in fp32 and twice in the type of the products."""
    chunk = min(CHUNK_TOKENS, num_predicted) * shape.vocabulary * FP32
    num_waiting = min(MAX_SAVED_LOGIT_BYTES // chunk, math.ceil(num_predicted / CHUNK_TOKENS))
    return (num_waiting + 3) * chunk + num_predicted * shape.hidden * (FP32 + 2 * _head_bytes(settings))


def _head_bytes(settings: ModelSection) -> int:
    """Of a number in the output head's products."""
    return FP32 if settings.head == "fp32" else _compute_bytes(settings)


def _compute_bytes(settings: ModelSection) -> int:
    return BF16 if settings.compute == "bf16" else FP32


def _compute_copies(shape: ModelShape, settings: ModelSection) -> int:
    """None where there is no autocast, or where the matrices are frozen, and held in bf16 as they are."""
    if settings.compute == "fp32" or settings.lora:
        return 0
    head = shape.embedding_weights if settings.head == "bf16" else 0
    return BF16 * (shape.layers * shape.layer_matrix_weights + head)


def engine_memory(gpu_bytes: int, gpu_memory_frac: float) -> int:
    """What vLLM takes on a GPU: a fixed part of all of it, weights and KV cache together."""
    return int(gpu_bytes * gpu_memory_frac)

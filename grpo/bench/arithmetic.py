"""How much arithmetic an update is, counted from its token ids and the model's shape, and how fast it could be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils.benchmark import Timer

from grpo.model.files import head_dim
from grpo.model.logprobs import CHUNK_TOKENS
from grpo.records import PromptTree

DENSE_BF16_PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200 NVL": 835e12, "H200": 989e12}
DENSE_BF16_PEAKS |= {"A100": 312e12}
"""NVIDIA's data sheets, FLOP/s without sparsity; the first name that is part of a device's."""
_RUN_S = 0.05
"""After a warm-up each product is made again and again for so long, once at least; the median counts."""

Matrix = tuple[int, int, int]
"""Outputs, inputs, and how many of that shape there are."""


@dataclass(frozen=True)
class ModelShape:
    """Weights that every token meets, those of the output head, and the size of the attention, whose width is query
    heads times their size. `is_frozen`: only adapters are trained, which are themselves too small to count."""

    body_parameters: int
    head_parameters: int
    num_layers: int
    attention_width: int
    is_frozen: bool = False


@dataclass(frozen=True)
class Work:
    """Tokens that go through the layers, positions that meet the output head, and pairs of tokens in the attention."""

    body_tokens: int
    head_tokens: int
    pairs: int


def flops(shape: ModelShape, work: Work) -> int:
    """Forward and backward: 6 for each weight that a token meets, 12 x layers x width for each pair.

    A weight is multiplied and added once in the forward pass and twice in the backward pass (once if it is frozen,
    since it has no gradient of its own); so is each of a pair's two products, query with key and weight with value.
    Norms and activations are left out, as usual, and so is what is computed a second time (recomputed activations or
    logits).
    """
    in_matrices = shape.body_parameters * work.body_tokens + shape.head_parameters * work.head_tokens
    return (4 if shape.is_frozen else 6) * in_matrices + 12 * shape.num_layers * shape.attention_width * work.pairs


def packed_work(micro_batches: Sequence[Sequence[PromptTree]]) -> Work:
    """Each prompt once in each tree; the last token of a completion is no input, and only seen pairs count."""
    body = head = pairs = 0
    for tree in chain.from_iterable(micro_batches):
        prompt, inputs = len(tree.prompt_ids), [len(branch.token_ids) - 1 for branch in tree.branches]
        body += prompt + sum(inputs)
        head += sum(inputs) + len(inputs)
        pairs += prompt * (prompt + 1) // 2 + sum(one * prompt + one * (one + 1) // 2 for one in inputs)
    return Work(body, head, pairs)


def padded_work(micro_batches: Sequence[Sequence[PromptTree]]) -> Work:
    """A row for each completion, as long as the longest prompt and the longest completion of its micro-batch; the
    head at every position, and all pairs of a row, since a mask only hides what was computed."""
    body = pairs = 0
    for rows in micro_batches:
        prompt = max(len(row.prompt_ids) for row in rows)
        length = prompt + max(len(branch.token_ids) for row in rows for branch in row.branches)
        body += len(rows) * length
        pairs += len(rows) * length * length
    return Work(body, body, pairs)


def model_shape(model: Any) -> ModelShape:
    """Read off a model that transformers loaded. All weights count for every token: experts are not told apart."""
    config = model.config.get_text_config()
    return ModelShape(
        body_parameters=sum(one.numel() for one in _body_weights(model)),
        head_parameters=model.get_output_embeddings().weight.numel(),
        num_layers=config.num_hidden_layers,
        attention_width=config.num_attention_heads * head_dim(config),
        is_frozen=not model.get_input_embeddings().weight.requires_grad,
    )


def matrices(model: Any) -> list[Matrix]:
    """The model's matrices by shape, the output head last."""
    counted = Counter((one.shape[0], one.shape[1]) for one in _body_weights(model) if one.dim() == 2)
    outputs, inputs = model.get_output_embeddings().weight.shape
    return [(*shape, count) for shape, count in counted.items()] + [(outputs, inputs, 1)]


def known_peak(device_name: str) -> float | None:
    """A GPU's dense bf16 FLOP/s, where it is known."""
    return next((peak for name, peak in DENSE_BF16_PEAKS.items() if name in device_name), None)


def matmul_rates(matrices: Sequence[Matrix], rows: int, head_rows: int, device: torch.device) -> dict[str, float]:
    """FLOP/s by type, each shape as often as the model has it.

    `rows` are the tokens of a micro-batch, `head_rows` those that meet the last of the matrices, the output head.
    """
    *body, head = matrices
    work = [(rows, one) for one in body] + [(min(head_rows, CHUNK_TOKENS), head)]
    flop = sum(6 * num * outputs * inputs * count for num, (outputs, inputs, count) in work)
    with torch.no_grad():
        return {
            name: flop / sum(matrix[2] * _seconds(num, matrix, dtype, device) for num, matrix in work)
            for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
        }


def _body_weights(model: Any) -> list[nn.Parameter]:
    """What every token is multiplied with before the head: neither what is looked up nor adapters."""
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    named = [(name, one) for name, one in model.base_model.named_parameters() if ".lora_" not in name]
    return [one for _, one in named if one.dim() >= 2 and id(one) not in looked_up]


def _seconds(rows: int, matrix: Matrix, dtype: torch.dtype, device: torch.device) -> float:
    """Of a matrix's three products in an update: forward, and backward to its inputs and to its weights."""
    outputs, inputs, _ = matrix
    sizes = {"x": (rows, inputs), "weight": (outputs, inputs), "grad": (rows, outputs)}
    given = {name: torch.randn(size, device=device).to(dtype) for name, size in sizes.items()}
    timers = [
        Timer(product, globals=given, num_threads=torch.get_num_threads())
        for product in ("x @ weight.T", "grad @ weight", "grad.T @ x")
    ]
    return sum(timer.blocked_autorange(min_run_time=_RUN_S).median for timer in timers)

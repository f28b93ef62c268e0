"""The attention of packed prompt trees on a GPU: all of them in one call of FlexAttention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from grpo.batching.pack import TreeShape
from grpo.errors import UserError
from grpo.model.attention.block_mask import make_block_mask
from grpo.model.compilation import compile_options

Attend = Callable[[Tensor, Tensor, Tensor, BlockMask], Tensor]


class FlexTreeAttention:
    """All trees in one call of FlexAttention, which skips the blocks in which nothing sees anything.

    Only compiled is it made block by block; otherwise torch holds the scores of all T x T pairs. So it is compiled
    for any length at once, and where torch would give up compiling, which it does without a word, this raises.
    `backend` is torch.compile's; None, for comparisons on a CPU, does not compile.
    """

    def __init__(self, shapes: Sequence[TreeShape], device: torch.device, backend: str | None = "inductor") -> None:
        self._mask = make_block_mask(shapes, device)
        self._backend = backend

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        # Rotary embeddings are in fp32, and so are the queries and keys that they turn, where autocast has left the
        # values in bf16; FlexAttention wants one type.
        queries, keys = queries.to(values.dtype), keys.to(values.dtype)
        if self._backend is None or torch.compiler.is_compiling():
            # Inside a layer that is compiled as a whole it becomes part of what is compiled.
            output = attention_with(scale)(queries, keys, values, self._mask)
        else:
            output = self._compiled(queries, keys, values, scale)
        return output.transpose(1, 2)

    def _compiled(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        try:
            return compiled_attention(scale, str(self._backend))(queries, keys, values, self._mask)
        except (FailOnRecompileLimitHit, TorchDynamoException) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"model.attention=flex: torch could not compile FlexAttention ({type(error).__name__}: {reason}); set "
                "it to tree_by_tree"
            ) from error


def attention_with(scale: float) -> Attend:
    """FlexAttention at one scale, which the kernel must know when it is compiled, and which as an argument it would
    not."""

    def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: BlockMask) -> Tensor:
        output: Tensor = flex_attention(
            queries,
            keys,
            values,
            block_mask=mask,
            scale=scale,
            enable_gqa=True,
            # One kernel for all lengths: the other, for fewer than 128 queries, is made for decoding.
            kernel_options={"FORCE_USE_FLEX_ATTENTION": True},
        )
        return output

    return attend


@cache
def compiled_attention(scale: float, backend: str) -> Attend:
    """`attention_with` compiled for lengths of any size. With `fullgraph` torch raises where it would otherwise run
    what is not compiled."""
    compiled: Attend = torch.compile(
        attention_with(scale), backend=backend, fullgraph=True, dynamic=True, **compile_options()
    )
    return compiled

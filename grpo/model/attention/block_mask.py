"""Which blocks of a packed sequence see which: FlexAttention's block mask, made on the CPU from lengths alone.

A token sees its own segment (its prompt, or its completion) up to itself, and, in a completion, its whole prompt. What
a block of 128 queries sees of a block of 128 keys follows from where segments begin and end, so that T x T pairs need
never be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from grpo.batching.pack import TreeShape

BLOCK_TOKENS = 128
"""Queries and keys of a block: what FlexAttention's own masks have."""

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Segments:
    """The S prompts and completions of a packed sequence, in order; a completion of one token, which is no input, is
    left out. All arrays are (S,).

    A token of a segment sees the keys from `starts` of its segment up to itself, and those from `prompt_starts` up to,
    not including, `prompt_stops`. A prompt's own prompt is empty.
    """

    starts: Ints
    stops: Ints
    prompt_starts: Ints
    prompt_stops: Ints

    @classmethod
    def of(cls, shapes: Sequence[TreeShape]) -> Segments:
        num = np.array([1 + len(shape.branch_lengths) for shape in shapes])
        lengths = np.array([size for shape in shapes for size in (shape.prompt_length, *shape.branch_lengths)])
        stops = lengths.cumsum()
        tree_starts = np.array([shape.start for shape in shapes]).repeat(num)
        prompt_lengths = np.array([shape.prompt_length for shape in shapes]).repeat(num)
        is_prompt = np.zeros(len(lengths), dtype=bool)
        is_prompt[num.cumsum() - num] = True
        prompt_stops = np.where(is_prompt, tree_starts, tree_starts + prompt_lengths)
        columns = (stops - lengths, stops, tree_starts, prompt_stops)
        return cls(*(column[lengths > 0].astype(np.int32) for column in columns))

    @property
    def num_tokens(self) -> int:
        return int(self.stops[-1])

    def of_tokens(self) -> Ints:
        """For each token its segment's start and its prompt's start and stop, (3, T)."""
        return np.stack([self.starts, self.prompt_starts, self.prompt_stops]).repeat(self.stops - self.starts, axis=1)


def seen_blocks(segments: Segments) -> tuple[Bools, Bools]:
    """For blocks of queries and blocks of keys, (T / 128, T / 128) each: whether any query sees any key, and whether
    all 128 see all 128. The last block, where it is not full, never sees nor is seen whole."""
    num_blocks = -(-segments.num_tokens // BLOCK_TOKENS)
    edges = np.arange(num_blocks, dtype=np.int32) * BLOCK_TOKENS
    # Pieces: runs of tokens in one segment and in one block. All of a piece see the same prompt, and more of their own
    # segment the later they come.
    firsts = np.union1d(segments.starts, edges)
    lasts = np.append(firsts[1:], segments.num_tokens) - 1
    of = np.searchsorted(segments.starts, firsts, side="right") - 1
    own, prompt, prompt_stop = (
        column[of][:, None] for column in (segments.starts, segments.prompt_starts, segments.prompt_stops)
    )
    begin, stop = edges[None], edges[None] + BLOCK_TOKENS
    some = (own < stop) & (lasts[:, None] >= begin) | (np.maximum(prompt, begin) < np.minimum(prompt_stop, stop))
    # A tree's first completion follows its prompt, so that both together are one run of keys.
    reach = np.where(prompt_stop == own, prompt, own)
    every = (reach <= begin) & (firsts[:, None] >= stop - 1) | (prompt <= begin) & (prompt_stop >= stop)
    rows = np.searchsorted(firsts, edges)
    any_seen, all_seen = np.logical_or.reduceat(some, rows), np.logical_and.reduceat(every, rows)
    if segments.num_tokens % BLOCK_TOKENS:
        all_seen[-1] = False
    return any_seen, all_seen


def make_block_mask(shapes: Sequence[TreeShape], device: torch.device) -> BlockMask:
    """The mask of packed trees on a device, with one copy to it, which nothing waits for."""
    segments = Segments.of(shapes)
    any_seen, all_seen = seen_blocks(segments)
    partly = any_seen & ~all_seen
    arrays = [segments.of_tokens(), *_listed(partly), *_listed(all_seen)]
    of_tokens, num, blocks, num_whole, whole_blocks = _moved(arrays, device)
    own_start, prompt_start, prompt_stop = of_tokens.unbind()

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        in_own = (key >= own_start[query]) & (key <= query)
        in_prompt = (key >= prompt_start[query]) & (key < prompt_stop[query])
        return in_own | in_prompt

    return BlockMask.from_kv_blocks(
        num[None, None],
        blocks[None, None],
        num_whole[None, None],
        whole_blocks[None, None],
        BLOCK_SIZE=BLOCK_TOKENS,
        mask_mod=sees,
        seq_lengths=(segments.num_tokens, segments.num_tokens),
    )


def _listed(chosen: Bools) -> tuple[Ints, Ints]:
    """How many blocks of each row are chosen, and all of the row's blocks, the chosen ones first."""
    order = np.argsort(~chosen, axis=1, kind="stable")
    return chosen.sum(1).astype(np.int32), order.astype(np.int32)


def _moved(arrays: Sequence[Ints], device: torch.device) -> list[Tensor]:
    """All arrays on a device, copied at once."""
    flat = torch.from_numpy(np.concatenate([one.reshape(-1) for one in arrays]))
    if device.type == "cuda":
        flat = flat.pin_memory()
    parts = torch.split(flat.to(device, non_blocking=True), [one.size for one in arrays])
    return [part.view(one.shape) for part, one in zip(parts, arrays, strict=True)]

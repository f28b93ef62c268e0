"""FlexAttention's block mask, made from lengths alone, against torch's own, which looks at every pair of tokens."""

from __future__ import annotations

import pytest
import torch
from forests import Forest, random_forest, shapes_of, visible
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from grpo.batching.pack import TreeShape
from grpo.model.attention.block_mask import BLOCK_TOKENS, Segments, make_block_mask, seen_blocks

CPU = torch.device("cpu")
FORESTS: dict[str, Forest] = {
    "one token": [(1, (0,))],
    "less than a block": [(40, (20, 0, 7))],
    "a block to the token": [(28, (50, 50))],
    "a token more": [(29, (50, 50))],
    "a prompt of whole blocks": [(256, (128, 128, 1))],
    "a branch of whole blocks": [(128, (256, 130)), (128, (128,))],
    "a first branch that goes on where the prompt ends": [(60, (200, 300))],
    "many small trees": [(3, (2, 0, 1))] * 90,
    "several": [(300, (200, 129, 128, 127)), (1, (0, 0)), (500, (1,))],
}
SEEDS = range(40)


def blocks(mask: Tensor) -> tuple[Tensor, Tensor]:
    """(blocks, blocks): any and all of each block's pairs, those beyond the last token not seen."""
    num = -(-len(mask) // BLOCK_TOKENS)
    padded = torch.zeros(num * BLOCK_TOKENS, num * BLOCK_TOKENS, dtype=torch.bool)
    padded[: len(mask), : len(mask)] = mask
    tiles = padded.view(num, BLOCK_TOKENS, num, BLOCK_TOKENS)
    return tiles.any(3).any(1), tiles.all(3).all(1)


def assert_blocks(forest: Forest) -> None:
    shapes = shapes_of(forest)
    found = seen_blocks(Segments.of(shapes))
    for one, other in zip(found, blocks(visible(shapes)), strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("name", FORESTS)
def test_blocks_are_those_of_all_pairs(name: str) -> None:
    assert_blocks(FORESTS[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_of_random_trees(seed: int) -> None:
    """Short and long ones, from one block to about twenty."""
    draw = torch.Generator().manual_seed(seed)
    assert_blocks(random_forest(draw, 1 + seed % 4, 1 + seed % 5, 4 ** (1 + seed % 5)))


def test_segments_by_hand() -> None:
    # A prompt of two with branches of two, none and one, then a second tree with a prompt of one and a branch of one.
    segments = Segments.of([TreeShape(0, 2, (2, 0, 1)), TreeShape(5, 1, (1,))])
    assert segments.num_tokens == 7
    assert segments.starts.tolist() == [0, 2, 4, 5, 6]
    assert segments.stops.tolist() == [2, 4, 5, 6, 7]
    assert segments.prompt_starts.tolist() == [0, 0, 0, 5, 5]
    assert segments.prompt_stops.tolist() == [0, 2, 2, 5, 6]
    assert segments.of_tokens().tolist() == [[0, 0, 2, 2, 4, 5, 6], [0, 0, 0, 0, 0, 5, 5], [0, 0, 2, 2, 2, 5, 6]]


@pytest.mark.parametrize("name", FORESTS)
def test_the_mask_is_torchs(name: str) -> None:
    """Every pair, and every table that the kernels read, forward and backward, as far as it is read."""
    shapes = shapes_of(FORESTS[name])
    found, size = make_block_mask(shapes, CPU), shapes[-1].stop
    tokens = torch.arange(size)
    none = torch.zeros((), dtype=torch.long)
    assert torch.equal(found.mask_mod(none, none, tokens[:, None], tokens[None]), visible(shapes))
    expected = create_block_mask(found.mask_mod, None, None, size, size, device="cpu")
    assert found.seq_lengths == expected.seq_lengths == (size, size)
    assert found.BLOCK_SIZE == expected.BLOCK_SIZE
    for whole in ("", "full_"):
        for side in ("kv", "q"):
            num, other_num = (getattr(mask, f"{whole}{side}_num_blocks") for mask in (found, expected))
            indices, others = (getattr(mask, f"{whole}{side}_indices") for mask in (found, expected))
            assert num.dtype == indices.dtype == torch.int32
            assert torch.equal(num, other_num)
            for row, count in enumerate(num[0, 0].tolist()):
                assert indices[0, 0, row, :count].tolist() == others[0, 0, row, :count].tolist()

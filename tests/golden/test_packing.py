"""Packed trees, laid out as on paper. What they are worth is in test_invariance.py."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from groups import branch_of, tree_of

from grpo.batching.pack import TreeShape, pack
from grpo.records import Branch, PromptTree

CPU = torch.device("cpu")
END = 0


pytestmark = pytest.mark.usefixtures("one_thread")


def branch(*ids: int, advantage: float = 1.0, weight: float = 1.0) -> Branch:
    """The advantage grows by 1 from token to token."""
    places = range(len(ids))
    return branch_of(ids, [-0.125 * place for place in places], [advantage + place for place in places], weight)


TWO_TREES = (
    tree_of((10, 11, 12), branch(20, 21, END, advantage=0.5, weight=0.25), branch(30, advantage=-1.0)),
    tree_of((13,), branch(40, END, advantage=2.0, weight=0.5)),
)


def test_the_layout_by_hand() -> None:
    packed = pack(TWO_TREES, CPU)
    # First tree: prompt at 0-2, completion 20 21 (its end token is no input) at 3-4, nothing of the one-token
    # completion. Second tree: prompt at 5, its completion's first token at 6.
    assert packed.token_ids.tolist() == [[10, 11, 12, 20, 21, 13, 40]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    assert packed.targets.tolist() == [20, 21, END, 30, 40, END]
    # A completion's first token is predicted by the prompt's last, 2 and 5, and each next by the one before it.
    assert packed.predictors.tolist() == [2, 3, 4, 2, 5, 6]
    assert packed.advantages.tolist() == [0.5, 1.5, 2.5, -1.0, 2.0, 3.0]
    assert packed.weights.tolist() == [0.25, 0.25, 0.25, 1.0, 0.5, 0.5]
    assert packed.sampler_logps.tolist() == [0.0, -0.125, -0.25, 0.0, 0.0, -0.125]
    # Three completions of three tokens, one and two.
    assert packed.completions.tolist() == [0, 0, 0, 1, 2, 2]
    assert packed.num_completions == 3
    assert packed.shapes == (
        TreeShape(0, 3, (2, 0)),
        TreeShape(5, 1, (1,)),
    )
    assert [shape.stop for shape in packed.shapes] == [5, 7]


def test_only_one_token_completions() -> None:
    packed = pack([tree_of((5, 6), branch(1), branch(2), branch(3))], CPU)
    assert packed.token_ids.tolist() == [[5, 6]]
    assert packed.targets.tolist() == [1, 2, 3]
    assert packed.predictors.tolist() == [1, 1, 1]
    assert packed.completions.tolist() == [0, 1, 2]
    assert packed.shapes == (TreeShape(0, 2, (0, 0, 0)),)


def test_the_same_completion_twice_is_trained_on_twice() -> None:
    packed = pack([tree_of((5,), branch(1, END), branch(1, END))], CPU)
    assert packed.token_ids.tolist() == [[5, 1, 1]]
    assert packed.position_ids.tolist() == [[0, 1, 1]]
    assert packed.targets.tolist() == [1, END, 1, END]
    assert packed.predictors.tolist() == [0, 1, 0, 2]


def test_an_end_token_in_the_middle_is_a_token_like_others() -> None:
    packed = pack([tree_of((END, 5), branch(END, 7, END, END))], CPU)
    assert packed.token_ids.tolist() == [[END, 5, END, 7, END]]
    assert packed.targets.tolist() == [END, 7, END, END]


def test_half_a_million_tokens_are_packed_at_once() -> None:
    """64 completions of 8k tokens in 0.1 s of this thread (the best of three): no loop goes over tokens. The tensors
    have the types that the model and the loss take."""
    ids, floats = np.arange(8192, dtype=np.int32), np.linspace(-1, 0, 8192, dtype=np.float32)
    trees = [PromptTree(ids[:256], (Branch(ids, floats, floats, 1.0),) * 16)] * 4
    spent = []
    for _ in range(3):
        began = time.thread_time()
        packed = pack(trees, CPU)
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.1
    assert packed.token_ids.shape == (1, 4 * (256 + 16 * 8191))
    assert packed.targets.shape == packed.weights.shape == (64 * 8192,)
    kinds = {name: getattr(packed, name).dtype for name in ("token_ids", "position_ids", "predictors", "targets")}
    assert set(kinds.values()) == {torch.long}
    assert packed.sampler_logps.dtype is packed.advantages.dtype is packed.weights.dtype is torch.float32

"""Attention over prompt trees against attention written out with one dense mask, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from forests import Forest, random_states, shapes_of, visible
from small import SIZES, make_policy, random_trees, save_model
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM

from grpo.batching.pack import TreeShape, pack
from grpo.model.attention import tree_by_tree
from grpo.model.attention.flex_trees import FlexTreeAttention
from grpo.model.attention.register import TreeAttention, attend_trees
from grpo.model.attention.tree_by_tree import TreeByTreeAttention
from grpo.model.network import Network
from grpo.recipe.sections import ModelSection

CPU = torch.device("cpu")
SIZE = 8
pytestmark = pytest.mark.usefixtures("one_thread")

FORESTS: dict[str, Forest] = {
    "one row": [(5, (3,))],
    "a prompt alone": [(5, (0,))],
    "a prompt of one": [(1, (1,))],
    "even branches": [(3, (4, 4, 4))],
    "ragged branches": [(4, (1, 7, 3, 2))],
    "branches of none": [(4, (0, 3, 0, 0, 2, 0))],
    "nothing but branches of none": [(6, (0, 0, 0))],
    "several": [(4, (1, 7, 3)), (1, (0, 2)), (2, (0, 0)), (9, (5,)), (3, (6, 0, 6))],
}
HEADS = [(4, 4), (4, 2), (4, 1)]


def dense(queries: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor) -> Tensor:
    """Every pair of tokens, then the mask: (1, H, T, d) and twice (1, K, T, d) to (1, T, H, d)."""
    outputs = []
    shared = queries.shape[1] // keys.shape[1]
    for head in range(queries.shape[1]):
        scores = queries[0, head] @ keys[0, head // shared].T * scale
        chances = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        outputs.append(chances @ values[0, head // shared])
    return torch.stack(outputs, 1)[None]


def states_of(num_tokens: int, num_heads: int, num_kv: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return random_states(num_tokens, num_heads, num_kv, SIZE, dtype)


def assert_dense(trees: TreeAttention, shapes: Sequence[TreeShape], heads: tuple[int, int], *, grad: bool) -> None:
    found, expected = (states_of(shapes[-1].stop, *heads) for _ in range(2))
    scale = 0.7
    output = trees(*(one if grad else one.detach() for one in found), scale)
    wanted = dense(*expected, scale, visible(shapes))
    torch.testing.assert_close(output, wanted, rtol=0, atol=1e-12)
    if grad:
        pull = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
        (output * pull).sum().backward()
        (wanted * pull).sum().backward()
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("plain_keys", [0, 6, 512], ids=["fused", "both", "plain"])
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("name", FORESTS)
def test_tree_by_tree_is_dense(
    name: str, heads: tuple[int, int], plain_keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients. Up to so many keys the scores are held whole, beyond torch's fused kernel makes them."""
    monkeypatch.setattr(tree_by_tree, "MAX_PLAIN_KEYS", plain_keys)
    shapes = shapes_of(FORESTS[name])
    assert_dense(TreeByTreeAttention(shapes, CPU), shapes, heads, grad=True)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("name", FORESTS)
def test_flex_trees_are_dense(name: str, heads: tuple[int, int]) -> None:
    """Forward only: on a CPU torch has no backward pass for FlexAttention (tests/gpu has it)."""
    shapes = shapes_of(FORESTS[name])
    assert_dense(FlexTreeAttention(shapes, CPU, backend=None), shapes, heads, grad=False)


def test_layers_of_one_pass_share_what_was_made() -> None:
    """The second call, with what the first left behind and in another type, is right too."""
    shapes = shapes_of(FORESTS["several"])
    trees = TreeByTreeAttention(shapes, CPU)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float64, 1e-12)):
        states = states_of(shapes[-1].stop, 4, 2, dtype)
        wanted = dense(*(one.double() for one in states), 1.0, visible(shapes))
        output = trees(*states, 1.0)
        assert output.dtype is dtype
        torch.testing.assert_close(output.double(), wanted, rtol=0, atol=tolerance)


def test_what_pads_a_branch_is_nothing() -> None:
    """Not even where it is infinite: a padded row's gradient goes nowhere, to the bit."""
    shapes = shapes_of([(2, (1, 3))])
    found = states_of(shapes[-1].stop, 2, 1)
    TreeByTreeAttention(shapes, CPU)(*found, 1.0)[0, 2].sum().backward()
    for states in found[1:]:
        # Only the prompt and the first branch, of one token, were looked at; the second branch was not.
        assert states.grad is not None
        assert states.grad[0, 0, :3].abs().sum() > 0
        assert states.grad[0, 0, 3:].abs().sum() == 0


def test_the_mask_of_this_test_by_hand() -> None:
    mask = visible([TreeShape(0, 2, (2, 0, 1)), TreeShape(5, 1, (1,))])
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


def handed_back(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    return torch.tensor(scale)


@pytest.mark.parametrize(("given", "expected"), [(None, SIZE**-0.5), (0.3, 0.3), (1.0, 1.0)])
def test_the_scale_is_the_models(given: float | None, expected: float) -> None:
    trees: TreeAttention = handed_back
    states = states_of(3, 2, 1)
    output, weights = attend_trees(torch.nn.Identity(), *states, None, tree_attention=trees, scaling=given)
    assert float(output) == pytest.approx(expected)
    assert weights is None


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"softcap": 50.0}, "softcap"),
        ({"s_aux": torch.zeros(2)}, "s_aux"),
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"dropout": 0.1}, "dropout"),
        ({"softcap": 50.0, "dropout": 0.1}, "softcap, dropout"),
    ],
)
def test_what_trees_have_not_is_refused(asked: dict[str, object], named: str) -> None:
    states = states_of(3, 2, 1)
    with pytest.raises(ValueError, match=f"Identity: asks its attention for {named}, which trees have not"):
        attend_trees(torch.nn.Identity(), *states, None, tree_attention=handed_back, **asked)  # type: ignore[arg-type]


def test_what_is_not_asked_for_is_not_refused() -> None:
    states = states_of(3, 2, 1)
    attend_trees(
        torch.nn.Identity(), *states, None, tree_attention=handed_back, softcap=None, sliding_window=None, dropout=0.0
    )


def test_a_model_that_asks_for_it_is_refused(tmp_path: Path) -> None:
    """Gemma 2 caps its scores; without a word it would be another model here than in the engine."""
    Gemma2ForCausalLM(Gemma2Config(**SIZES)).save_pretrained(tmp_path)
    policy = make_policy(tmp_path)
    with pytest.raises(ValueError, match="Gemma2Attention: asks its attention for softcap"):
        policy.logprobs([[1, 2, 3]])


def test_a_dropout_is_only_refused_where_it_would_be_applied(tmp_path: Path) -> None:
    save_model("llama_dropout", tmp_path)
    network = Network(tmp_path, ModelSection(path=str(tmp_path)), torch.float32, CPU)
    network.logprobs(pack(random_trees(), CPU), 1.0)
    network.recompute_activations()  # in training mode
    with pytest.raises(ValueError, match="LlamaAttention: asks its attention for dropout"):
        network.logprobs(pack(random_trees(), CPU), 1.0)

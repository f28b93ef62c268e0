"""Packed trees: laid out as on paper, and worth the same log-probs as every completion run alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from grpo.config import ModelSection, RolloutSection, UpdateSection
from grpo.meter import Meter
from grpo.packing import pack, tree_mask
from grpo.policy import Policy, PolicySettings
from grpo.types import Branch, PromptTree
from grpo.world import SoleWorld

CPU = torch.device("cpu")
END = 0


pytestmark = pytest.mark.usefixtures("one_thread")


def branch(*ids: int, advantage: float = 1.0, weight: float = 1.0) -> Branch:
    return Branch(ids, tuple(-0.125 * index for index in range(len(ids))), advantage, weight)


TWO_TREES = (
    PromptTree((10, 11, 12), (branch(20, 21, END, advantage=0.5, weight=0.25), branch(30, advantage=-1.0))),
    PromptTree((13,), (branch(40, END, advantage=2.0, weight=0.5),)),
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
    assert packed.advantages.tolist() == [0.5, 0.5, 0.5, -1.0, 2.0, 2.0]
    assert packed.weights.tolist() == [0.25, 0.25, 0.25, 1.0, 0.5, 0.5]
    assert packed.sampler_logps.tolist() == [0.0, -0.125, -0.25, 0.0, 0.0, -0.125]


def test_the_mask_by_hand() -> None:
    # Prompt of two, branches of two and one, then a second tree with a prompt of one and a branch of one.
    mask = tree_mask(torch.tensor([0, 0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 2, 0, 1]))
    assert mask.dtype is torch.bool
    assert mask.shape == (1, 1, 7, 7)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


def test_only_one_token_completions() -> None:
    packed = pack([PromptTree((5, 6), (branch(1), branch(2), branch(3)))], CPU)
    assert packed.token_ids.tolist() == [[5, 6]]
    assert packed.targets.tolist() == [1, 2, 3]
    assert packed.predictors.tolist() == [1, 1, 1]


def test_the_same_completion_twice_is_trained_on_twice() -> None:
    packed = pack([PromptTree((5,), (branch(1, END), branch(1, END)))], CPU)
    assert packed.token_ids.tolist() == [[5, 1, 1]]
    assert packed.position_ids.tolist() == [[0, 1, 1]]
    assert packed.targets.tolist() == [1, END, 1, END]
    assert packed.predictors.tolist() == [0, 1, 0, 2]


def test_an_end_token_in_the_middle_is_a_token_like_others() -> None:
    packed = pack([PromptTree((END, 5), (branch(END, 7, END, END),))], CPU)
    assert packed.token_ids.tolist() == [[END, 5, END, 7, END]]
    assert packed.targets.tolist() == [END, 7, END, END]


SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": END,
}
"""Weights ten times the usual size, so that a token in the wrong place shows."""

ARCHITECTURES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "llama_dropout": (LlamaForCausalLM, LlamaConfig(**SIZES, attention_dropout=0.1)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "qwen2_window_off": (Qwen2ForCausalLM, Qwen2Config(**SIZES, use_sliding_window=False, sliding_window=8)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES)),
    "gemma": (GemmaForCausalLM, GemmaConfig(**SIZES)),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**SIZES, sliding_window=128)),
}


def random_trees() -> tuple[PromptTree, ...]:
    """Three trees whose completions have from one to nine tokens, most of them ending with the end token."""
    generator = torch.Generator().manual_seed(11)

    def draw(length: int) -> tuple[int, ...]:
        ids: list[int] = torch.randint(1, 61, (length,), generator=generator).tolist()
        return tuple(ids)

    shapes = [(5, (4, 1, 9)), (1, (3, 3)), (8, (1, 6, 2, 7))]
    return tuple(
        PromptTree(draw(prompt), tuple(branch(*draw(length - 1), END) for length in lengths))
        for prompt, lengths in shapes
    )


def alone(model: Any, trees: Sequence[PromptTree], temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of all completion tokens, each completion run by itself through the whole model."""
    logps, entropies = [], []
    for tree in trees:
        for one in tree.branches:
            ids = [*tree.prompt_ids, *one.token_ids]
            logits = model(input_ids=torch.tensor([ids])).logits[0]
            log_probs = torch.log_softmax(logits.float() / temperature, dim=-1)
            for index in range(len(tree.prompt_ids), len(ids)):
                logps.append(log_probs[index - 1, ids[index]])
                entropies.append(-(log_probs[index - 1].exp() * log_probs[index - 1]).sum())
    return torch.stack(logps), torch.stack(entropies)


def make_policy(folder: Path, temperature: float) -> Policy:
    settings = PolicySettings(
        ModelSection(path=str(folder), compute="fp32"),
        UpdateSection(lr=1e-3),
        RolloutSection(prompts_per_step=1, group_size=2, max_new_tokens=16, temperature=temperature, dtype="float32"),
        steps=1,
    )
    return Policy(folder, settings, SoleWorld(CPU), Meter())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_is_the_same_as_alone(name: str, tmp_path: Path) -> None:
    assert_packed_is_alone(*ARCHITECTURES[name], tmp_path)


def assert_packed_is_alone(kind: Any, config: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    kind(config).save_pretrained(tmp_path)
    plain = kind.from_pretrained(tmp_path, dtype=torch.float32).eval()
    trees = random_trees()
    temperature = 0.8
    policy = make_policy(tmp_path, temperature)

    expected, expected_entropies = alone(plain, trees, temperature)
    logps, entropies = policy._forward(policy._model, pack(trees, CPU))
    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(entropies, expected_entropies, rtol=0, atol=1e-5)

    # The gradient too: pull every token by another amount.
    pull = torch.linspace(-1, 1, len(expected))
    (expected * pull).sum().backward()
    (logps * pull).sum().backward()
    for parameter, other in zip(policy._model.parameters(), plain.parameters(), strict=True):
        scale = float(other.grad.abs().max())
        torch.testing.assert_close(parameter.grad, other.grad, rtol=0, atol=1e-5 * max(1.0, scale))

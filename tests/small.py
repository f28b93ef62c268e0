"""Small random models of several architectures, what they are given to learn, and policies of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from groups import branch_of, completion_of, prompt_of, tree_of
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

from grpo.parallel.world import SoleWorld, World
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy, PolicySettings
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection
from grpo.records import Branch, Group, PromptTree, ScoredGroup
from rewards.records import Outcome, Score

CPU = torch.device("cpu")
END = 0
MAX_NEW_TOKENS = 12
VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": END,
}
"""Weights five times the usual size, so that a token in the wrong place shows."""

ARCHITECTURES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "llama_dropout": (LlamaForCausalLM, LlamaConfig(**SIZES, attention_dropout=0.1)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    "qwen2_window_off": (Qwen2ForCausalLM, Qwen2Config(**SIZES, use_sliding_window=False, sliding_window=8)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES)),
    "gemma": (GemmaForCausalLM, GemmaConfig(**SIZES)),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(**SIZES, sliding_window=128)),
}


def branch(ids: Sequence[int], advantage: float = 1.0, weight: float = 1.0) -> Branch:
    return branch_of(ids, -1.5, advantage, weight)


def random_trees() -> tuple[PromptTree, ...]:
    """Three trees whose completions have from one to nine tokens, most of them ending with the end token."""
    generator = torch.Generator().manual_seed(11)

    def draw(length: int) -> tuple[int, ...]:
        ids: list[int] = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
        return tuple(ids)

    shapes = [(5, (4, 1, 9)), (1, (3, 3)), (8, (1, 6, 2, 7))]
    return tuple(
        tree_of(draw(prompt), *(branch((*draw(length - 1), END)) for length in lengths)) for prompt, lengths in shapes
    )


def alone(model: Any, trees: Sequence[PromptTree], temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of all completion tokens, each completion run by itself through the whole model, in
    the type that the model computes in."""
    logps, entropies = [], []
    for tree in trees:
        for one in tree.branches:
            ids = [*tree.prompt_ids, *one.token_ids]
            log_probs = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0] / temperature, dim=-1)
            for index in range(len(tree.prompt_ids), len(ids)):
                logps.append(log_probs[index - 1, ids[index]])
                entropies.append(-(log_probs[index - 1].exp() * log_probs[index - 1]).sum())
    return torch.stack(logps), torch.stack(entropies)


def save_model(name: str, folder: Path) -> Any:
    """Write an architecture's random model into a folder; returns it as transformers loads it."""
    kind, config = ARCHITECTURES[name]
    torch.manual_seed(1)
    kind(config).save_pretrained(folder)
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


def make_policy(
    folder: Path,
    *,
    world: World | None = None,
    temperature: float = 1.0,
    compute: Literal["fp32", "bf16"] = "fp32",
    **update: object,
) -> Policy:
    """With a gradient that is not held back."""
    settings = PolicySettings(
        ModelSection(path=str(folder), compute=compute),
        UpdateSection(**({"lr": 1e-3, "max_grad_norm": 1e6} | update)),  # type: ignore[arg-type]
        RolloutSection(
            prompts_per_step=4, group_size=3, max_new_tokens=MAX_NEW_TOKENS, temperature=temperature, dtype="float32"
        ),
        steps=10,
    )
    return Policy(folder, settings, world or SoleWorld(CPU), PhaseClock())


GROUPS: tuple[tuple[int, tuple[tuple[int, float], ...]], ...] = (
    (5, ((4, 1.0), (1, 0.0), (9, 0.25))),
    (1, ((3, 0.0), (3, 2.0), (2, 0.0))),
    (4, ((5, 0.5), (2, 0.5), (7, 0.5))),  # dead
    (8, ((1, 1.0), (6, 0.0), (12, 0.5))),  # the last one's advantage is exactly 0
)
"""A prompt's length, and the length and reward of each of its completions."""


def scored_groups(seed: int) -> list[ScoredGroup]:
    """A step's groups, of random tokens."""
    draw = torch.Generator().manual_seed(seed)
    return [_scored(prompt, rewarded, draw) for prompt, rewarded in GROUPS]


def _scored(prompt_length: int, rewarded: Sequence[tuple[int, float]], draw: torch.Generator) -> ScoredGroup:
    def tokens(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=draw).tolist())

    prompt = prompt_of(tokens(prompt_length))
    completions = tuple(
        completion_of((*tokens(length - 1), END), (-2 - torch.rand(length, generator=draw)).tolist())
        for length, _ in rewarded
    )
    scores = tuple(Score(reward, {"correctness": reward}, Outcome.WRONG, None) for _, reward in rewarded)
    return ScoredGroup(Group(prompt, completions, version=0, position=0), scores)

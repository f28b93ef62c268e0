"""The rollouts that every side learns from: drawn from a seed, or real prompts with completions of a real engine."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from transformers import AutoConfig

from data.problem import Problem
from data.sources import load_problems
from data.spec import SourceSpec
from data.templates import get_template
from grpo.bench.options import MAX_NEW_TOKENS, TEMPLATES, Options
from grpo.bench.process import run_apart
from grpo.errors import UserError
from grpo.model.files import check_supported, context_length, load_tokenizer, stop_ids
from grpo.parallel.world import join_world
from grpo.phases import PhaseClock
from grpo.policy.policy import Policy
from grpo.recipe.sections import RolloutSection
from grpo.records import Completion, Group, Prompt, ScoredGroup, TokenIds
from grpo.rollout.engines.protocol import Sampling
from grpo.rollout.engines.vllm_client import VllmEngine
from grpo.rollout.generate import GenerationPlan, Rollouts
from grpo.rollout.prompts import render_prompts
from grpo.rollout.weight_sync.proof import PROBE_PROMPTS, PROBE_TOKENS, LoadedOnce, WeightSync
from rewards.records import Outcome, Score

REWARD = "bench:fixed"
SAMPLER_LOGP = -1.0
"""Of tokens that no engine wrote."""
_UNWRITTEN_MEAN, _UNWRITTEN_SPREAD = 64, 0.5
"""Lengths of a shape's completions where no engine can write them: 32 to 96 tokens."""

Groups = tuple[ScoredGroup, ...]


def make_rollouts(options: Options, folder: Path, temporary: Path, *, engine: bool) -> tuple[Groups, str]:
    """The groups, and in a few words what they are. Raises UserError where they do not fit the model or the budget."""
    vocabulary = AutoConfig.from_pretrained(folder).get_text_config().vocab_size
    num = options.groups * options.group_size
    if not options.shape:
        prompt_lengths = spread_lengths(options.prompt_tokens, options.spread, options.groups, seed=0)
        lengths = spread_lengths(options.completion_tokens, options.spread, num, seed=1)
        _check_lengths(max(prompt_lengths), max(lengths), options, folder)
        return random_groups(random_prompts(prompt_lengths, vocabulary), lengths, vocabulary), "random tokens"
    prompts = _real_prompts(options, folder)
    _check_lengths(max(len(prompt.token_ids) for prompt in prompts), MAX_NEW_TOKENS, options, folder)
    what = f"two-digit sums in the template {TEMPLATES[options.shape]}"
    if engine:
        size = options.group_size
        settings = RolloutSection(prompts_per_step=len(prompts), group_size=size, max_new_tokens=MAX_NEW_TOKENS)
        write = partial(_write, folder, settings, prompts, options.device, temporary / "writer_engine.log")
        written = run_apart(write, temporary / "writer.log")
        return _with_rewards(written), f"{what}, completions by vLLM"
    lengths = spread_lengths(_UNWRITTEN_MEAN, _UNWRITTEN_SPREAD, num, seed=1)
    return random_groups(prompts, lengths, vocabulary), f"{what}, completions of random tokens"


def random_prompts(lengths: Sequence[int], vocabulary: int) -> list[Prompt]:
    """Prompts of random tokens."""
    rng = random.Random(0)
    problems = [Problem(f"bench/{row}", "", "", "exact", "bench", row=row) for row in range(len(lengths))]
    return [Prompt(one, _tokens(length, vocabulary, rng)) for one, length in zip(problems, lengths, strict=True)]


def random_groups(prompts: Sequence[Prompt], lengths: Sequence[int], vocabulary: int) -> Groups:
    """Completions of random tokens for given prompts; one length for each of all completions, group by group."""
    rng = random.Random("completions")
    completions = [
        Completion(_tokens(one, vocabulary, rng), np.full(one, SAMPLER_LOGP, np.float32), "", "length")
        for one in lengths
    ]
    size = len(lengths) // len(prompts)
    return _with_rewards(
        [
            Group(prompt, tuple(completions[number * size : (number + 1) * size]), version=0, position=number)
            for number, prompt in enumerate(prompts)
        ]
    )


def spread_lengths(mean: int, spread: float, num: int, seed: int) -> list[int]:
    """`num` lengths, even from mean (1 - spread) to mean (1 + spread), in random order: the mean is always `mean`."""
    places = [(2 * index + 1) / num - 1 for index in range(num)]
    lengths = [max(1, math.floor(mean * (1 + spread * place) + 0.5)) for place in places]
    random.Random(f"{mean} {seed}").shuffle(lengths)
    return lengths


def draw_rewards(num: int, rng: random.Random) -> list[float]:
    """0 or 1 each, and both are there."""
    rewards = [1.0, 0.0, *(float(rng.random() < 0.5) for _ in range(num - 2))]
    rng.shuffle(rewards)
    return rewards


def open_rollouts(
    folder: Path, settings: RolloutSection, prompts: Sequence[Prompt], device: str, log: Path, policy: Policy | None
) -> tuple[Rollouts, Sampling, PhaseClock]:
    """vLLM as in a run: with the policy's weights, or where there is none with the model's own."""
    tokenizer = load_tokenizer(folder)
    sampling = Sampling(settings.temperature, settings.max_new_tokens, stop_ids(folder, tokenizer))
    world = join_world(device)
    engine = VllmEngine(
        folder,
        settings,
        max_model_len=max(len(prompt.token_ids) for prompt in prompts) + settings.max_new_tokens,
        device=world.device,
        seed=0,
        log=log,
    )
    probe = [prompt.token_ids[:PROBE_TOKENS].tolist() for prompt in prompts[:PROBE_PROMPTS]]
    sync = WeightSync(engine, policy, world, probe, settings.sync_tolerance) if policy else LoadedOnce()
    clock = PhaseClock()
    return Rollouts(engine, sync, tokenizer.decode, 0, clock), sampling, clock


def token_counts(groups: Groups) -> tuple[list[int], list[int]]:
    """Of every prompt, and of every completion."""
    completions = [len(completion.token_ids) for one in groups for completion in one.group.completions]
    return [len(one.group.prompt.token_ids) for one in groups], completions


def longest(groups: Groups) -> tuple[int, int]:
    """Tokens of the longest prompt, and of the longest completion."""
    prompts, completions = token_counts(groups)
    return max(prompts), max(completions)


def _write(folder: Path, settings: RolloutSection, prompts: list[Prompt], device: str, log: Path) -> list[Group]:
    rollouts, sampling, _ = open_rollouts(folder, settings, prompts, device, log, None)
    groups = rollouts.write(prompts, GenerationPlan(settings.group_size, sampling, "recorded"))
    return sorted(groups, key=lambda group: group.position)


def _with_rewards(groups: Sequence[Group]) -> Groups:
    """Rewards are drawn, and not all alike in any group."""
    rng = random.Random("rewards")
    drawn = [draw_rewards(len(group.completions), rng) for group in groups]
    return tuple(
        ScoredGroup(group, tuple(Score(reward, {REWARD: reward}, Outcome.WRONG, None) for reward in rewards))
        for group, rewards in zip(groups, drawn, strict=True)
    )


def _tokens(length: int, vocabulary: int, rng: random.Random) -> TokenIds:
    return np.array([rng.randrange(vocabulary) for _ in range(length)], np.int32)


def _real_prompts(options: Options, folder: Path) -> list[Prompt]:
    spec = SourceSpec(source="arithmetic", num_problems=options.groups, options={"min_value": 10, "max_value": 99})
    template = get_template(TEMPLATES[options.shape or "A"])
    return render_prompts(load_problems(spec).problems, template, load_tokenizer(folder), max_tokens=10**9)[0]


def _check_lengths(prompt: int, completion: int, options: Options, folder: Path) -> None:
    context = context_length(folder)
    needed = prompt + completion
    if context is not None and needed > context:
        raise UserError(
            f"--completion-tokens={completion}: with a prompt of {prompt} tokens that is {needed}, and the model's "
            f"context holds {context}; ask for fewer"
        )
    if options.budget < needed:
        raise UserError(
            f"--budget={options.budget}: a prompt with one completion may have {needed} tokens; give at least that"
        )
    check_supported(folder, needed, gradient_checkpointing=options.gradient_checkpointing)

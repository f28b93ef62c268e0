"""The rollouts that every side learns from: drawn from a seed, or real prompts with completions of a real engine."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from data.problem import Problem
from data.sources import load_problems
from data.spec import SourceSpec
from data.templates import get_template
from grpo.bench.options import MAX_NEW_TOKENS, TEMPLATES, Options
from grpo.bench.process import OwnProcess
from grpo.errors import UserError
from grpo.model.files import check_supported, context_length, load_tokenizer, model_config, stop_ids
from grpo.parallel.world import join_world
from grpo.recipe.sections import RolloutSection
from grpo.records import Completion, Group, Prompt, ScoredGroup
from grpo.rollout.engines.protocol import Request, Sampling, Written, derive_seed
from grpo.rollout.engines.vllm_client import VllmEngine
from grpo.rollout.prompts import render_prompts
from rewards.records import Outcome, Score

REWARD = "bench:fixed"
SAMPLER_LOGP = -1.0
"""Of tokens that no engine wrote."""
_UNWRITTEN_MEAN, _UNWRITTEN_SPREAD = 64, 0.5
"""Lengths of a shape's completions where no engine can write them: 32 to 96 tokens."""

Tokens = tuple[int, ...]
Groups = tuple[ScoredGroup, ...]


class Writer:
    """vLLM on the prompts of a bench, with the model's own weights until it is given others."""

    def __init__(
        self, folder: Path, settings: RolloutSection, prompts: Sequence[Tokens], device: str, log: Path
    ) -> None:
        self._prompts = prompts
        self._group_size = settings.group_size
        ends = stop_ids(folder, load_tokenizer(folder))
        self._sampling = Sampling(settings.temperature, settings.max_new_tokens, ends)
        longest = max(map(len, prompts)) + settings.max_new_tokens
        on = join_world(device).device
        self.engine = VllmEngine(folder, settings, max_model_len=longest, device=on, seed=0, log=log)

    def write(self, name: str) -> list[tuple[Written, ...]]:
        """A group of completions for each prompt, in order; all seeds are derived from the name."""
        requests = [
            Request(prompt, tuple(derive_seed(name, number, index) for index in range(self._group_size)))
            for number, prompt in enumerate(self._prompts)
        ]
        written = dict(self.engine.generate(requests, self._sampling))
        return [written[number] for number in range(len(requests))]


def make_rollouts(options: Options, folder: Path, temporary: Path, *, engine: bool) -> tuple[Groups, str]:
    """The groups, and in a few words what they are. Raises UserError where they do not fit the model or the budget."""
    vocabulary = _vocabulary(folder)
    num = options.groups * options.group_size
    if not options.shape:
        prompts = spread_lengths(options.prompt_tokens, options.spread, options.groups, seed=0)
        lengths = spread_lengths(options.completion_tokens, options.spread, num, seed=1)
        _check_lengths(max(prompts), max(lengths), options, folder)
        return random_groups(random_prompts(prompts, vocabulary), lengths, vocabulary), "random tokens"
    real = _real_prompts(options, folder)
    _check_lengths(max(map(len, real)), MAX_NEW_TOKENS, options, folder)
    what = f"two-digit sums in the template {TEMPLATES[options.shape]}"
    if engine:
        return _written_groups(real, options, folder, temporary), f"{what}, completions by vLLM"
    lengths = spread_lengths(_UNWRITTEN_MEAN, _UNWRITTEN_SPREAD, num, seed=1)
    return random_groups(real, lengths, vocabulary), f"{what}, completions of random tokens"


def random_prompts(lengths: Sequence[int], vocabulary: int, seed: int = 0) -> list[Tokens]:
    """Prompts of random tokens."""
    rng = random.Random(seed)
    return [_tokens(length, vocabulary, rng) for length in lengths]


def random_groups(prompts: Sequence[Tokens], lengths: Sequence[int], vocabulary: int, seed: int = 0) -> Groups:
    """Completions of random tokens for given prompts; one length for each of all completions, group by group."""
    rng = random.Random(f"completions {seed}")
    size = len(lengths) // len(prompts)
    groups = []
    for number, prompt in enumerate(prompts):
        here = lengths[number * size : (number + 1) * size]
        completions = [Written(_tokens(one, vocabulary, rng), (SAMPLER_LOGP,) * one, "length") for one in here]
        groups.append(_group(number, prompt, completions, rng))
    return tuple(groups)


def spread_lengths(mean: int, spread: float, num: int, seed: int) -> list[int]:
    """`num` lengths, even from mean (1 - spread) to mean (1 + spread), in random order: the mean is always `mean`."""
    places = [(2 * index + 1) / num - 1 for index in range(num)]
    lengths = [max(1, math.floor(mean * (1 + spread * place) + 0.5)) for place in places]
    random.Random(f"{mean} {seed}").shuffle(lengths)
    return lengths


def draw_rewards(num: int, rng: random.Random) -> tuple[float, ...]:
    """0 or 1 each, and both are there."""
    rewards = [1.0, 0.0, *(float(rng.random() < 0.5) for _ in range(num - 2))]
    rng.shuffle(rewards)
    return tuple(rewards)


def num_tokens(groups: Groups) -> tuple[int, int]:
    """Tokens of all prompts, and of all completions."""
    prompts = sum(len(one.group.prompt.token_ids) for one in groups)
    return prompts, sum(len(completion.token_ids) for one in groups for completion in one.group.completions)


def longest(groups: Groups) -> tuple[int, int]:
    """Tokens of the longest prompt, and of the longest completion."""
    prompt = max(len(one.group.prompt.token_ids) for one in groups)
    return prompt, max(len(completion.token_ids) for one in groups for completion in one.group.completions)


def rows_for(budget: int, groups: Groups) -> int:
    """Padded rows that fit a budget of tokens; one at least."""
    return max(1, budget // sum(longest(groups)))


def _written_groups(prompts: Sequence[Tokens], options: Options, folder: Path, temporary: Path) -> Groups:
    size = options.group_size
    settings = RolloutSection(prompts_per_step=len(prompts), group_size=size, max_new_tokens=MAX_NEW_TOKENS)
    with OwnProcess(temporary / "writer.log") as process:
        process.open(Writer, folder, settings, prompts, options.device, temporary / "writer_engine.log")
        written = process.ask("write", "recorded")
    rng = random.Random("rewards")
    return tuple(_group(number, *one, rng) for number, one in enumerate(zip(prompts, written, strict=True)))


def _group(number: int, prompt: Tokens, written: Sequence[Written], rng: random.Random) -> ScoredGroup:
    """With rewards that are drawn and not all alike."""
    rewards = draw_rewards(len(written), rng)
    asked = Prompt(Problem(f"bench/{number}", "", "", "exact", "bench", row=number), prompt)
    completions = tuple(Completion(one.token_ids, one.logps, "", "length") for one in written)
    scores = tuple(Score(reward, {REWARD: reward}, Outcome.WRONG, None) for reward in rewards)
    return ScoredGroup(Group(asked, completions, version=0, position=number), scores)


def _tokens(length: int, vocabulary: int, rng: random.Random) -> Tokens:
    return tuple(rng.randrange(vocabulary) for _ in range(length))


def _real_prompts(options: Options, folder: Path) -> list[Tokens]:
    spec = SourceSpec(source="arithmetic", num_problems=options.groups, options={"min_value": 10, "max_value": 99})
    template = get_template(TEMPLATES[options.shape or "A"])
    prompts, _ = render_prompts(load_problems(spec).problems, template, load_tokenizer(folder), max_tokens=10**9)
    return [tuple(prompt.token_ids) for prompt in prompts]


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


def _vocabulary(folder: Path) -> int:
    config = model_config(folder)
    size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
    if not size:
        raise UserError(f"--model={folder}: no vocab_size in its config.json; choose another model")
    return int(size)

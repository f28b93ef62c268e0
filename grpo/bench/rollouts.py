"""From the options to the rollouts that are learnt from."""

from __future__ import annotations

from pathlib import Path

from data.sources import load_problems
from data.spec import SourceSpec
from data.templates import get_template
from grpo.bench.options import MAX_NEW_TOKENS, TEMPLATES, Options
from grpo.bench.whole import WriterJob
from grpo.bench.work import FixedGroup, complete, longest, spread_lengths, synthetic_groups
from grpo.bench.worker import Worker
from grpo.errors import UserError
from grpo.model.files import check_supported, context_length, load_tokenizer, model_config
from grpo.rollout.prompts import render_prompts

_UNWRITTEN_MEAN, _UNWRITTEN_SPREAD = 64, 0.5
"""Lengths of a shape's completions where no engine can write them: 32 to 96 tokens."""


def make_rollouts(
    options: Options, folder: Path, temporary: Path, env: dict[str, str], *, engine: bool
) -> tuple[tuple[FixedGroup, ...], str]:
    """The groups, and in a few words what they are. Raises UserError where they do not fit the model or the budget."""
    vocabulary = _vocabulary(folder)
    num = options.groups * options.group_size
    if not options.shape:
        prompts = spread_lengths(options.prompt_tokens, options.spread, options.groups, seed=0)
        lengths = spread_lengths(options.completion_tokens, options.spread, num, seed=1)
        groups = synthetic_groups(prompts, lengths, options.group_size, vocabulary)
        _check_lengths(*longest(groups), options, folder)
        return tuple(groups), "random tokens"
    real = _real_prompts(options, folder)
    _check_lengths(max(map(len, real)), MAX_NEW_TOKENS, options, folder)
    what = f"two-digit sums in the template {TEMPLATES[options.shape]}"
    if engine:
        job = WriterJob(
            folder, real, options.group_size, MAX_NEW_TOKENS, options.device, temporary / "writer_engine.log"
        )
        with Worker("writer", job, temporary / "writer.log", env) as writer:
            return tuple(writer.ask("write")), f"{what}, completions by vLLM"
    lengths = spread_lengths(_UNWRITTEN_MEAN, _UNWRITTEN_SPREAD, num, seed=1)
    return tuple(complete(real, lengths, options.group_size, vocabulary)), f"{what}, completions of random tokens"


def _real_prompts(options: Options, folder: Path) -> tuple[tuple[int, ...], ...]:
    spec = SourceSpec(source="arithmetic", num_problems=options.groups, options={"min_value": 10, "max_value": 99})
    template = get_template(TEMPLATES[options.shape or "A"])
    prompts, _ = render_prompts(load_problems(spec).problems, template, load_tokenizer(folder), max_tokens=10**9)
    return tuple(prompt.token_ids for prompt in prompts)


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

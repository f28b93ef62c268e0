"""Everything about problems and model that can be found wrong before the model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.problem import Problem
from data.sources import LoadedProblems, load_problems
from data.spec import SourceSpec
from data.templates import Template, get_template
from grpo.errors import UserError
from grpo.evaluation.evaluator import HeldOut, set_names
from grpo.model.files import check_compiler, check_supported, context_length, load_tokenizer, resolve_model, stop_ids
from grpo.policy.objective_choice import choose_correction, choose_objective
from grpo.recipe.sections import Recipe
from grpo.records import Prompt
from grpo.rollout.engines.protocol import Sampling
from grpo.rollout.prompts import render_prompts
from grpo.rollout.scoring import GroupScorer

Say = Callable[[str], None]
_ROWS_NAMED = 10


@dataclass(frozen=True)
class RunInputs:
    """What a run is made of, all of it checked."""

    model_folder: Path
    tokenizer: Any
    template: Template
    train: tuple[Prompt, ...]
    held_out: tuple[HeldOut, ...]
    sampling: Sampling
    eval_sampling: Sampling
    max_model_len: int


def prepare(recipe: Recipe, scorer: GroupScorer, say: Say, *, for_training: bool = True) -> RunInputs:
    """Try the objective, load problems, check golds, find the model's files, render every prompt. Raises UserError.

    An evaluation alone needs no training problems, and then gets none.
    """
    if for_training:
        choose_objective(recipe.update)
        choose_correction(recipe.update)
        if recipe.model.compile:
            check_compiler()
    template = get_template(recipe.data.template)
    train = _usable(recipe.data.train, "data.train", recipe, scorer, say) if for_training else []
    held_out = [_usable(spec, f"eval.sources.{i}", recipe, scorer, say) for i, spec in enumerate(recipe.eval.sources)]
    folder = resolve_model(recipe.model.path)
    tokenizer = load_tokenizer(folder)
    max_model_len = _check_context(recipe, folder)

    def render(problems: Sequence[Problem], where: str) -> tuple[Prompt, ...]:
        return _render(problems, where, template, tokenizer, recipe, say)

    rollout, evaluation = recipe.rollout, recipe.eval
    ends = stop_ids(folder, tokenizer)
    prompts = render(train, "data.train") if for_training else ()
    if for_training and rollout.prompts_per_step > len(prompts):
        say(f"data.train: {len(prompts)} problems for {rollout.prompts_per_step} prompts a step: some come twice")
    names = set_names(recipe.eval.sources)
    return RunInputs(
        model_folder=folder,
        tokenizer=tokenizer,
        template=template,
        train=prompts,
        held_out=tuple(
            HeldOut(name, render(problems, f"eval.sources.{i}"))
            for i, (name, problems) in enumerate(zip(names, held_out, strict=True))
        ),
        sampling=Sampling(rollout.temperature, rollout.max_new_tokens, ends, rollout.stop),
        eval_sampling=Sampling(
            evaluation.temperature, evaluation.max_new_tokens or rollout.max_new_tokens, ends, rollout.stop
        ),
        max_model_len=max_model_len,
    )


def _usable(spec: SourceSpec, where: str, recipe: Recipe, scorer: GroupScorer, say: Say) -> list[Problem]:
    """The problems of a source whose golds can judge, the others named by row."""
    try:
        loaded = load_problems(spec)
    except DataError as error:
        raise UserError(f"{where}.{error}") from None
    try:
        reasons = scorer.check_golds([(problem.checker, problem.gold) for problem in loaded.problems])
    except ValueError as error:
        raise UserError(f"{where}.{error}") from None
    bad = [(row.row, row.reason) for row in loaded.rejected]
    bad += [(problem.row, why) for problem, why in zip(loaded.problems, reasons, strict=True) if why]
    kept = [problem for problem, why in zip(loaded.problems, reasons, strict=True) if not why]
    if bad:
        _report_bad_rows(bad, where, spec, loaded, recipe, say)
    if not kept:
        raise UserError(f"{where}={_label(spec)}: not one row can be used; see the reasons above")
    say(f"{where}: {len(kept)} problems from {_label(spec)}")
    return kept


def _report_bad_rows(
    bad: list[tuple[int, str]], where: str, spec: SourceSpec, loaded: LoadedProblems, recipe: Recipe, say: Say
) -> None:
    total = len(loaded.problems) + len(loaded.rejected)
    lines = [f"  row {row}: {why}" for row, why in sorted(bad)[:_ROWS_NAMED]]
    if len(bad) > _ROWS_NAMED:
        lines.append(f"  and {len(bad) - _ROWS_NAMED} more")
    message = "\n".join([f"{where}={_label(spec)}: {len(bad)} of {total} rows cannot be used:", *lines])
    if len(bad) > recipe.data.max_bad_frac * total:
        raise UserError(
            f"{message}\nthat is more than data.max_bad_frac={recipe.data.max_bad_frac} allows; mend the rows, "
            "name another checker, or allow more"
        )
    say(f"{message}\nthey are left out")


def _check_context(recipe: Recipe, folder: Path) -> int:
    longest_answer = max(recipe.rollout.max_new_tokens, recipe.eval.max_new_tokens or 0)
    needed = recipe.data.max_prompt_tokens + longest_answer
    context = context_length(folder)
    if context is not None and needed > context:
        raise UserError(
            f"data.max_prompt_tokens={recipe.data.max_prompt_tokens}: with {longest_answer} new tokens that is "
            f"{needed}, and the model's context holds {context}; lower one of the two"
        )
    check_supported(folder, needed, gradient_checkpointing=recipe.model.gradient_checkpointing)
    return needed


def _render(
    problems: Sequence[Problem], where: str, template: Template, tokenizer: Any, recipe: Recipe, say: Say
) -> tuple[Prompt, ...]:
    limit = recipe.data.max_prompt_tokens
    prompts, too_long = render_prompts(problems, template, tokenizer, limit)
    if too_long:
        named = ", ".join(f"row {one.problem.row} ({one.num_tokens})" for one in too_long[:_ROWS_NAMED])
        say(f"{where}: {len(too_long)} prompts are over data.max_prompt_tokens={limit} and left out: {named}")
    if not prompts:
        raise UserError(
            f"data.max_prompt_tokens={limit}: all {len(too_long)} prompts of {where} are longer, the first "
            f"{too_long[0].num_tokens} tokens; raise the limit"
        )
    return tuple(prompts)


def _label(spec: SourceSpec) -> str:
    return f"{spec.source} ({spec.path})" if spec.path else f"{spec.source} {spec.split}"

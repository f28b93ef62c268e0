"""Settings of a recipe each of which is valid by itself, but not together with another one."""

from __future__ import annotations

from collections.abc import Iterator

from grpo.objectives.table import objective_fault
from grpo.recipe.sections import Recipe, advantage_of


def contradictions(recipe: Recipe) -> Iterator[str]:
    """A message for every such pair of settings."""
    rollout, update, evaluation = recipe.rollout, recipe.update, recipe.eval
    if evaluation.temperature == 0 and evaluation.num_completions > 1:
        yield (
            f"eval.num_completions={evaluation.num_completions}: eval.temperature=0 would write the same "
            "completion every time; set eval.temperature above 0, or eval.num_completions to 1"
        )
    if evaluation.every and not evaluation.sources:
        yield f"eval.every={evaluation.every}: eval.sources is empty; name a source, or set eval.every to 0"
    if update.warmup_steps >= recipe.run.steps:
        yield (
            f"update.warmup_steps={update.warmup_steps}: the run has {recipe.run.steps} steps, so that the rate "
            "would never be reached; set fewer warm-up steps"
        )
    longest = recipe.data.max_prompt_tokens + rollout.max_new_tokens
    if update.tokens_per_micro_batch < longest:
        yield (
            f"update.tokens_per_micro_batch={update.tokens_per_micro_batch}: one prompt with one completion may "
            f"have {longest} tokens (data.max_prompt_tokens + rollout.max_new_tokens); set at least that many"
        )
    if update.mini_batches > rollout.prompts_per_step:
        yield (
            f"update.mini_batches={update.mini_batches}: a step has {rollout.prompts_per_step} groups to share out "
            "(rollout.prompts_per_step); set at most that many"
        )
    if problem := objective_fault(update.objective):
        yield f"update.objective={update.objective}: {problem}"
    if rollout.max_rounds > 1 and advantage_of(update) == "batch":
        yield (
            f"rollout.max_rounds={rollout.max_rounds}: update.advantage=batch compares completions with those of the "
            "whole step, so that a group of equal rewards teaches too; set max_rounds to 1, or another advantage"
        )
    if update.kl_in == "reward" and not update.kl_weight:
        yield "update.kl_in=reward: update.kl_weight is 0, so that nothing is taken off; set a weight, or kl_in=loss"
    if update.kl_in == "reward" and update.advantage == "gdpo":
        yield (
            "update.kl_in=reward: update.advantage=gdpo normalises each reward by itself, so that there is none "
            "to take the KL off; set kl_in=loss, or another advantage"
        )
    if update.reference_every and not update.kl_weight:
        yield (
            f"update.reference_every={update.reference_every}: update.kl_weight is 0, so that there is no reference; "
            "set a weight, or reference_every to 0"
        )
    names = [spec.name for spec in recipe.rewards]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"rewards={name}: named twice; give each reward once, with one weight"
    if not any(spec.weight for spec in recipe.rewards):
        yield "rewards: every weight is 0, so that nothing would be learnt; give one reward a weight"

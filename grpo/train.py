"""The loop."""

from __future__ import annotations

from grpo.advantages.compute import compute_advantages
from grpo.assemble import Run
from grpo.batching.micro_batches import make_batches
from grpo.recipe.sections import advantage_of


def train(run: Run) -> None:
    """Go on from where the run's folder stands to the last step of its recipe."""
    recipe = run.recipe
    step = run.checkpoints.restore(run.policy)
    run.log.begin(step)
    if step == 0:
        run.log.evaluation(step, run.evaluator.evaluate(step))
    while step < recipe.run.steps:
        step += 1
        drawn = run.collector.draw(step)
        costs = run.world.interleave(run.policy.kl_costs(run.world.stride(drawn.kept)))
        credited_groups = compute_advantages(drawn.kept, costs, recipe.rewards, advantage_of(recipe.update))
        run.log.completions(step, drawn, credited_groups)
        batches = make_batches(credited_groups, recipe.update, recipe.rollout.max_new_tokens, run.world.size)
        stats = run.policy.update(*batches)
        evaluation = run.evaluator.evaluate_if_due(step)
        run.log.step(step, drawn, credited_groups, stats, evaluation)
        run.checkpoints.save_if_due(run.policy, step)
    run.log.finish()

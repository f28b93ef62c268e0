"""The loop."""

from __future__ import annotations

from grpo.assemble import Run
from grpo.batch import make_batches
from grpo.lessons import draw_lessons


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
        costs = run.world.gather(run.policy.kl_costs(run.world.share(drawn.kept)))
        lessons = draw_lessons(drawn.kept, costs, recipe.rewards, recipe.update)
        run.log.completions(step, drawn, lessons)
        batches = make_batches(lessons, recipe.update, recipe.rollout.max_new_tokens, run.world.size)
        stats = run.policy.update(*batches)
        evaluation = run.evaluator.evaluate_if_due(step)
        run.log.step(step, drawn, lessons, stats, evaluation)
        run.checkpoints.save_if_due(run.policy, step)
    run.log.finish()

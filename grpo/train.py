"""The loop."""

from __future__ import annotations

from grpo.assemble import Run
from grpo.batch import make_batch
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
        prompts = run.world.share(run.prompts.take(step))
        groups = run.rollouts.write(prompts, run.draw(step))
        scored = run.world.gather(run.judge.score(groups, step))
        lessons = draw_lessons(scored, recipe.rewards, recipe.update)
        run.log.completions(step, lessons)
        batch = make_batch(run.world.share(lessons), recipe.update, recipe.rollout.max_new_tokens)
        stats = run.policy.update(batch)
        evaluation = run.evaluator.evaluate_if_due(step)
        run.log.step(step, lessons, stats, evaluation)
        run.checkpoints.save_if_due(run.policy, step)
    run.log.finish()

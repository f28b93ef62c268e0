"""The loop."""

from __future__ import annotations

from grpo.assemble import Run


def train(run: Run) -> None:
    """Go on from where the run's folder stands to the last step of its recipe."""
    step = run.checkpoints.restore(run.policy)
    run.log.begin(step)
    if step == 0:
        run.log.evaluation(step, run.evaluator.evaluate(step))
    while step < run.recipe.run.steps:
        step += 1
        drawn = run.collector.draw(step)
        credit = run.assigner.assign(drawn)
        run.log.completions(step, drawn, credit)
        stats = run.policy.update(*run.assigner.batches(drawn, credit))
        evaluation = run.evaluator.evaluate_if_due(step)
        run.log.step(step, drawn, credit, stats, evaluation)
        run.checkpoints.save_if_due(run.policy, step)
    run.log.finish()

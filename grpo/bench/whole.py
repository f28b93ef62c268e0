"""The whole step of this trainer, from weight sync to update, with the real engine where vLLM is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grpo.bench.rollouts import Writer, num_tokens
from grpo.bench.side import UpdateJob
from grpo.bench.sides import OurUpdate
from grpo.rollout.weight_sync.proof import PROBE_PROMPTS, PROBE_TOKENS, WeightSync


class WholeStep:
    """Policy, engine and weight sync as in a run. The update is always on the job's rollouts, whatever was written."""

    def __init__(self, job: UpdateJob, generate: bool, log: Path) -> None:
        self._side = OurUpdate(job)
        self._writer: Writer | None = None
        if generate:
            settings = job.settings().rollout
            prompts = [tuple(one.group.prompt.token_ids) for one in job.groups]
            self._writer = Writer(job.folder, settings, prompts, job.options.device, log)
            probe = [prompt[:PROBE_TOKENS] for prompt in prompts[:PROBE_PROMPTS]]
            self._sync = WeightSync(self._writer.engine, self._side.policy, probe, settings.sync_tolerance)

    def run(self, warm_up_steps: int, num_steps: int) -> dict[str, Any]:
        """Seconds by phase, one entry a step after the warm-up, and what was seen of the last update."""
        steps = [self._step(f"step {number}") for number in range(warm_up_steps + num_steps)][warm_up_steps:]
        return {name: [step[name] for step in steps] for name in steps[0]} | {
            "completion_tokens": num_tokens(self._side.job.groups)[1],
            "loss": self._side.loss,
            "grad_norm": self._side.grad_norm,
        }

    def _step(self, name: str) -> dict[str, float]:
        watch = self._side.watch
        watch.read()
        num_generated = 0
        if self._writer:
            watch.enter("sync")
            self._sync.bring()
            watch.enter("generate")
            num_generated = sum(len(one.token_ids) for row in self._writer.write(name) for one in row)
        watch.enter("other")
        self._side.update()
        taken = watch.read()
        parts = {"sync_s": taken["sync"], "generate_s": taken["generate"], "generated_tokens": num_generated}
        step_s = sum(taken.values())
        return parts | {"step_s": step_s, "update_s": step_s - taken["sync"] - taken["generate"]}

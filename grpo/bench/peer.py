"""TRL's trainer as the other side of a whole step: in a Python that has it, which need not be this one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpo
from grpo.bench.external import CommandJob
from grpo.bench.memory import Look
from grpo.bench.side import LR, UpdateJob, rows_for
from grpo.bench.work import FixedGroup
from grpo.bench.worker import BenchError, Worker
from grpo.errors import UserError

_MODULE = "grpo.bench.peer_trl"


@dataclass(frozen=True)
class TrlSide:
    """How TRL is run: on the job's rollouts, in `python`."""

    python: Path
    weights: str
    rows: int | None
    """Of a micro-batch, at most; None: what the budget of tokens allows."""
    correction: bool
    generate: bool
    num_steps: int
    warm_up_steps: int

    def job(self, update: UpdateJob) -> dict[str, Any]:
        """What the child reads."""
        return {
            "model": str(update.folder),
            "weights": self.weights,
            "groups": [
                {
                    "prompt": group.prompt,
                    "completions": group.completions,
                    "sampler_logps": group.sampler_logps,
                    "rewards": group.rewards,
                }
                for group in update.groups
            ],
            "temperature": 1.0,
            "lr": LR,
            "max_new_tokens": update.max_new_tokens,
            "num_steps": self.num_steps,
            "warm_up_steps": self.warm_up_steps,
            "micro_batch": micro_batch(self.rows or rows_for(update.budget, update.groups), update.groups),
            "generate": self.generate,
            "correct_sampler": self.correction,
        }

    def run(self, update: UpdateJob, folder: Path, env: dict[str, str], look: Look) -> dict[str, Any]:
        """One run of the child, in a new folder; what it found."""
        folder.mkdir()
        job, result, log = folder / "job.json", folder / "result.json", folder / "trl.log"
        job.write_text(json.dumps(self.job(update)))
        # The package alone, so that nothing else of this Python's is imported there.
        (folder / "path").mkdir()
        (folder / "path" / "grpo").symlink_to(Path(grpo.__file__).parent, target_is_directory=True)
        words = (str(self.python), "-P", "-m", _MODULE, str(job), str(result))
        command = CommandJob(words, {"PYTHONPATH": str(folder / "path"), **env})
        with Worker("command", command, log, look=look) as worker:
            code = worker.ask("run")
        if code == 0:
            found: dict[str, Any] = json.loads(result.read_text())
            return found
        words_said = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        if code == 2:
            raise UserError(words_said.splitlines()[-1] if words_said else f"{_MODULE}: exit code 2")
        raise BenchError(f"bench: trl ended with exit code {code}; its last words:\n{words_said}")


def micro_batch(most: int, groups: Sequence[FixedGroup]) -> int:
    """Rows that TRL computes together: of those numbers that divide all rows the largest up to `most`."""
    num_rows = sum(len(group.completions) for group in groups)
    fitting = min(num_rows, most)
    return next(rows for rows in range(fitting, 0, -1) if num_rows % rows == 0)

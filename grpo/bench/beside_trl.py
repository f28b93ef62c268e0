"""TRL's trainer as the other side of a whole step: in a Python that has it, which need not be this one."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from grpo.bench import trl_trainer
from grpo.bench.process import BenchError, last_words, run_apart
from grpo.bench.rollouts import Groups, longest
from grpo.bench.side import LR, UpdateJob, rows_for
from grpo.errors import UserError
from grpo.records import ScoredGroup

_ASK_LIMIT_S = 60.0
_ASK = "import importlib.util as u, json; print(json.dumps({n: u.find_spec(n) is not None for n in ('trl', 'vllm')}))"
_ENVIRONMENT = {
    # Engine and trainer may both use every core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}


def peer_has_vllm(python: Path) -> bool:
    """Whether TRL's Python can generate with vLLM. Raises UserError where it has no TRL."""
    words = [str(python), "-P", "-c", _ASK]
    try:
        done = subprocess.run(words, capture_output=True, timeout=_ASK_LIMIT_S, check=True, env=_environment())
        found: dict[str, bool] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UserError(
            f"--trl-python={python}: does not run ({error}); give the path of a Python that has trl"
        ) from None
    if not found["trl"]:
        raise UserError(
            f"--against=trl: trl is not installed in {python}; pip install trl there, or name a Python that has it "
            "with --trl-python"
        )
    return found["vllm"]


def trl_job(job: UpdateJob, *, generate: bool, warm_up_steps: int) -> dict[str, Any]:
    """The same update for TRL: one generation is one step of the optimiser. What its settings (``GRPOConfig``) do not
    name has TRL's default."""
    options = job.options
    rows = micro_batch(options.trl_rows or rows_for(options.budget, job.groups), job.groups)
    settings = {
        "model_init_kwargs": {"dtype": options.trl_weights},
        "bf16": True,
        "beta": 0.0,
        "num_iterations": 1,
        "num_generations": options.group_size,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": options.groups * options.group_size // rows,
        "gradient_checkpointing": False,
        "max_completion_length": job.max_new_tokens,
        "temperature": job.settings().rollout.temperature,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "max_steps": warm_up_steps + options.steps,
        "shuffle_dataset": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_vllm": generate,
        "vllm_mode": "colocate",
        "vllm_max_model_length": longest(job.groups)[0] + job.max_new_tokens,
        # TRL's default beside vLLM, which takes one more forward pass.
        "vllm_importance_sampling_correction": job.corrects,
    }
    groups = [_plain(group) for group in job.groups]
    return {"model": str(job.folder), "groups": groups, "warm_up_steps": warm_up_steps, "settings": settings}


def run_trl(job: dict[str, Any], python: Path, folder: Path, look: Callable[[int], None]) -> dict[str, Any]:
    """One run of TRL from start to end, in a new folder; what it found."""
    folder.mkdir()
    question, answer = folder / "job.json", folder / "result.json"
    question.write_text(json.dumps(job))
    words = (str(python), "-P", trl_trainer.__file__, str(question), str(answer))
    call = partial(subprocess.call, words, env=_environment(), stdin=subprocess.DEVNULL)
    if code := run_apart(call, folder / "trl.log", look):
        raise BenchError(f"bench: trl ended with exit code {code}; its last words:\n{last_words(folder / 'trl.log')}")
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def micro_batch(most: int, groups: Groups) -> int:
    """Rows that TRL computes together: of those numbers that divide all rows the largest up to `most`."""
    num_rows = sum(len(group.scores) for group in groups)
    return next(rows for rows in range(min(num_rows, most), 0, -1) if num_rows % rows == 0)


def _plain(group: ScoredGroup) -> dict[str, Any]:
    completions = group.group.completions
    return {
        "prompt": group.group.prompt.token_ids.tolist(),
        "completions": [one.token_ids.tolist() for one in completions],
        "sampler_logps": [one.sampler_logps.tolist() for one in completions],
        "rewards": [score.reward for score in group.scores],
    }


def _environment() -> dict[str, str]:
    """This process's own, without the path that it imports from."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | _ENVIRONMENT

"""The two ways that are compared: the trainer's own update, and the plain padded one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from grpo.batching.pack import Packed
from grpo.bench.arithmetic import Work, packed_work, padded_work
from grpo.bench.padded import padded_logprobs
from grpo.bench.side import Side, UpdateJob, rows_for
from grpo.parallel.world import join_world
from grpo.phases import PhaseClock
from grpo.policy.optimiser import make_optimiser
from grpo.policy.policy import Policy
from grpo.records import PromptTree


class OurUpdate(Side):
    """`Policy.update` as it is, watched from outside."""

    def __init__(self, job: UpdateJob) -> None:
        super().__init__(job)
        self._settings = job.settings()
        self.policy = Policy(job.folder, self._settings, join_world(job.device), PhaseClock())
        self._weighed: list[Tensor] = []
        network, step = self.policy._network, self.policy._step
        forward = self.clock.timed("forward", network.logprobs)
        timed_step = self.clock.timed("optimiser", step)

        def logprobs(packed: Packed, temperature: float, *, entropy: bool = True) -> tuple[Tensor, Tensor]:
            logps, entropies = forward(packed, temperature, entropy=entropy)
            self._weighed.append((packed.advantages * packed.weights * logps.detach()).sum())
            return logps, entropies

        def watched_step(has_signal: bool) -> tuple[float, bool]:
            self.stepping()
            self.grad_norm, skipped = timed_step(has_signal)
            return self.grad_norm, skipped

        network.logprobs = logprobs  # type: ignore[method-assign]
        self.policy._step = watched_step  # type: ignore[method-assign]

    def update(self) -> None:
        self._weighed.clear()
        batch = self.job.batch(self._settings.update)
        self.policy.update(batch)
        self.loss = -sum(map(float, self._weighed)) / batch.denominator

    def model(self) -> Any:
        return self.policy._model

    def work(self) -> Work:
        return packed_work(self._micro_batches())

    def layout(self) -> str:
        trees = self._micro_batches()
        tokens = max(sum(tree.num_tokens for tree in each) for each in trees)
        return f"prompt trees, micro-batches: {len(trees)}, of up to {tokens} tokens"

    def _micro_batches(self) -> Sequence[Sequence[PromptTree]]:
        return self.job.batch(self._settings.update).micro_batches


class PaddedUpdate(Side):
    """A padded row for each completion, in the order in which they came; logits of all positions; loss.backward().

    The same weights, autocast, optimiser, bound on the gradient and budget of tokens as ours. transformers' default
    attention.
    """

    def __init__(self, job: UpdateJob) -> None:
        super().__init__(job)
        self._settings = job.settings()
        self._model = AutoModelForCausalLM.from_pretrained(job.folder, dtype=torch.float32).to(self.device).eval()
        if job.gradient_checkpointing:
            self._model.train()
            self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._optimiser = make_optimiser(self._trained(), self._settings.update)
        self._forward = self.clock.timed("forward", self._logprobs)
        self._timed_step = self.clock.timed("optimiser", self._step)

    def update(self) -> None:
        micro_batches, denominator = self._rows()
        self.loss = 0.0
        for rows in micro_batches:
            logps = self._forward(rows)
            branches = [branch for row in rows for branch in row.branches]
            advantages = [value * branch.weight for branch in branches for value in branch.advantages]
            loss = -(torch.tensor(advantages, device=self.device) * logps).sum() / denominator
            loss.backward()
            self.loss += float(loss.detach())
        self.stepping()
        self.grad_norm = self._timed_step()

    def model(self) -> Any:
        return self._model

    def work(self) -> Work:
        return padded_work(self._rows()[0])

    def layout(self) -> str:
        rows = self._rows()[0]
        return f"padded rows, micro-batches: {len(rows)}, of up to {max(map(len, rows))} rows"

    def _logprobs(self, rows: Sequence[PromptTree]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.compute == "bf16"):
            return padded_logprobs(self._model, rows, self._settings.rollout.temperature)[0]

    def _step(self) -> float:
        norm = float(torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.update.max_grad_norm))
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return norm

    def _rows(self) -> tuple[list[list[PromptTree]], float]:
        """Micro-batches of about as many rows each, as few as the budget allows, and the loss's denominator."""
        whole = self._settings.update.model_copy(update={"tokens_per_micro_batch": 10**9})
        batch = self.job.batch(whole)
        trees = [tree for trees in batch.micro_batches for tree in trees]
        rows = [PromptTree(tree.prompt_ids, (branch,)) for tree in trees for branch in tree.branches]
        num = math.ceil(len(rows) / rows_for(self.job.budget, self.job.groups))
        size = math.ceil(len(rows) / num)
        return [rows[start : start + size] for start in range(0, len(rows), size)], batch.denominator

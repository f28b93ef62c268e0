"""The two ways that are compared: the trainer's own update, and the plain padded one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from grpo.batching.pack import Packed
from grpo.bench.arithmetic import packed_work, padded_work
from grpo.bench.padded import padded_logprobs
from grpo.bench.side import Side, Stopwatch, UpdateJob, rows_for
from grpo.model.network import Network
from grpo.parallel.world import SoleWorld
from grpo.phases import PhaseClock
from grpo.policy.optimiser import make_optimiser
from grpo.policy.policy import Policy
from grpo.records import Batch, PromptTree


class OurUpdate(Side):
    """`Policy.update` as it is, in a world and with a network that say how far it has come.

    What follows a backward pass up to the next forward pass counts as ``backward``.
    """

    layout = "prompt trees"
    count = staticmethod(packed_work)

    def __init__(self, job: UpdateJob) -> None:
        super().__init__(job)
        self.policy = Policy(job.folder, self.settings, _WatchedWorld(self.device, self.stepping), PhaseClock())
        self._network = _WatchedNetwork(self.policy.network, self.watch)
        self.policy.network = cast(Network, self._network)
        self.model = self.policy.network.model

    def update(self) -> None:
        self._network.weighed.clear()
        batch = self.batch()
        self.grad_norm = self.policy.update(batch)["update/grad_norm"]
        self.loss = -sum(map(float, self._network.weighed)) / batch.denominator

    def batch(self) -> Batch:
        return self.job.batch(self.job.options.budget)


class PaddedUpdate(Side):
    """A padded row for each completion, in the order in which they came; logits of all positions; loss.backward().

    The same weights, autocast, optimiser, bound on the gradient and budget of tokens as ours. transformers' default
    attention.
    """

    layout = "padded rows"
    count = staticmethod(padded_work)

    def __init__(self, job: UpdateJob) -> None:
        super().__init__(job)
        self.model = AutoModelForCausalLM.from_pretrained(job.folder, dtype=torch.float32).to(self.device).eval()
        if job.options.gradient_checkpointing:
            self.model.train()
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._optimiser = make_optimiser(self.trained(), self.settings.update)

    def update(self) -> None:
        batch = self.batch()
        self.loss = 0.0
        for rows in batch.micro_batches:
            self.watch.enter("forward")
            logps = self._logprobs(rows)
            self.watch.enter("other")
            branches = [branch for row in rows for branch in row.branches]
            weights = torch.from_numpy(np.concatenate([branch.advantages * branch.weight for branch in branches]))
            loss = -(weights.to(self.device) * logps).sum() / batch.denominator
            self.watch.enter("backward")
            torch.autograd.backward(loss)
            self.watch.enter("other")
            self.loss += float(loss.detach())
        self.stepping()
        bound = self.settings.update.max_grad_norm
        self.grad_norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), bound))
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def batch(self) -> Batch:
        """A tree for each row; of micro-batches as few as the budget allows, each of about as many rows."""
        whole = self.job.batch(10**9)
        trees = [tree for trees in whole.micro_batches for tree in trees]
        rows = [PromptTree(tree.prompt_ids, (branch,)) for tree in trees for branch in tree.branches]
        num = math.ceil(len(rows) / rows_for(self.job.options.budget, self.job.groups))
        size = math.ceil(len(rows) / num)
        cut = tuple(tuple(rows[start : start + size]) for start in range(0, len(rows), size))
        return replace(whole, micro_batches=cut)

    def _logprobs(self, rows: Sequence[PromptTree]) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.options.compute == "bf16"):
            return padded_logprobs(self.model, rows, self.settings.rollout.temperature)[0]


class _WatchedWorld(SoleWorld):
    """A world of one, which is asked for the sum of its gradients when all of them are there."""

    def __init__(self, device: torch.device, stepping: Callable[[], None]) -> None:
        super().__init__(device)
        self._stepping = stepping

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._stepping()


class _WatchedNetwork:
    """A network, with the phases of those of its passes that are learnt from, and what each of them weighs:
    advantage x weight x log-prob, summed over its tokens."""

    def __init__(self, network: Network, watch: Stopwatch) -> None:
        self._network = network
        self._watch = watch
        self.weighed: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def logprobs(self, packed: Packed, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor | None]:
        if not torch.is_grad_enabled():
            return self._network.logprobs(packed, *arguments, **named)
        self._watch.enter("forward")
        logps, entropies = self._network.logprobs(packed, *arguments, **named)
        self._watch.enter("other")
        # Their gradient is what the backward pass begins with.
        logps.register_hook(lambda gradient: self._watch.enter("backward"))  # type: ignore[no-untyped-call]
        self.weighed.append((packed.advantages * packed.weights * logps.detach()).sum())
        return logps, entropies

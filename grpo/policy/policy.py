"""The model that is trained: its update, and the ways its weights leave it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from grpo.batching.pack import Packed, pack
from grpo.errors import UserError
from grpo.model.lora import open_network
from grpo.model.network import Reference
from grpo.objectives.kl import ESTIMATORS
from grpo.objectives.tokens import Tokens
from grpo.parallel.world import World
from grpo.phases import PhaseClock
from grpo.policy.export import export_bytes, export_model
from grpo.policy.learning_rate import learning_rate
from grpo.policy.objective_choice import choose_correction, choose_objective
from grpo.policy.optimiser import make_optimiser
from grpo.policy.token_sums import TokenSums
from grpo.recipe.interval import is_due
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection
from grpo.records import Batch, Branch, KlCosts, PromptTree, ScoredGroup, TokenIds


@dataclass(frozen=True)
class PolicySettings:
    """The parts of a recipe that shape the update."""

    model: ModelSection
    update: UpdateSection
    rollout: RolloutSection
    steps: int


@dataclass(frozen=True, eq=False)
class Frozen:
    """What later passes over a micro-batch take from the first: log-probs of the policy before the step's update, and
    of the reference where the loss has a KL to it, each (N,), in nats."""

    proximal_logps: Tensor
    ref_logps: Tensor | None


class Policy:
    """What is trained, in fp32, AdamW, and an update that is exact whatever the micro-batches and ranks.

    `settings` are the recipe's, `network` is what is trained, `optimiser` what moves it, `objective` and `correction`
    the functions that say how, `reference` the frozen policy that a KL is taken to, where the recipe has one. `version`
    counts the updates that were made, skipped ones included: it is the step that was reached.
    """

    def __init__(self, folder: Path, settings: PolicySettings, world: World, clock: PhaseClock) -> None:
        self.settings = settings
        self._world = world
        self._clock = clock
        self.objective = choose_objective(settings.update)
        self.correction = choose_correction(settings.update)
        self._kl = ESTIMATORS[settings.update.kl_estimator]
        self.network = open_network(folder, settings.model, world.device)
        if settings.model.gradient_checkpointing:
            self.network.recompute_activations()
        if settings.model.compile:
            self.network.compile_layers()
        moves = settings.update.reference_every > 0
        self.reference = self.network.reference(moves) if settings.update.kl_weight else None
        self.optimiser = make_optimiser(self.network.trained, settings.update)
        self.version = 0
        self._bad_steps = 0

    def update(self, *batches: Batch) -> dict[str, float]:
        """One step: in every inner epoch a pass of the optimiser for each batch.

        Returns metrics that are the same on all ranks; those with no token are left out.
        """
        with self._clock.phase("update"):
            sums = TokenSums(self.settings.update.inner_epochs * len(batches))
            frozen: list[list[Frozen | None]] = [[None] * len(batch.micro_batches) for batch in batches]
            self._freeze_later(batches[1:], frozen[1:], sums)
            num_skipped = 0
            for _ in range(self.settings.update.inner_epochs):
                for batch, known in zip(batches, frozen, strict=True):
                    for index, trees in enumerate(batch.micro_batches):
                        if trees:
                            packed = pack(trees, self._world.device)
                            known[index] = self._accumulate(packed, known[index], batch.denominator, sums)
                    norm, skipped = self._step(batch.has_signal)
                    num_skipped += skipped
            rate = self._rate(self.version)
            self.version += 1
            self._refresh_reference()
            stepped = {"update/grad_norm": norm, "update/skipped": float(num_skipped), "update/lr": rate}
            return stepped | sums.metrics(self._world)

    def kl_costs(self, groups: Mapping[int, ScoredGroup]) -> dict[int, KlCosts]:
        """By position, what `update.kl_in` takes off the reward of each token, for every completion of each group.

        Nothing where the KL is in the loss.
        """
        settings = self.settings.update
        if self.reference is None or settings.kl_in == "loss":
            return {}
        with self._clock.phase("update"), torch.no_grad():
            return {position: self._group_costs(group, self.reference) for position, group in groups.items()}

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probs, at temperature 1, of every token after the first of each sequence, in nats.

        All sequences go through one packed forward pass, as in the update: what is proven of these log-probs (the
        weight sync compares them with the engine's) is proven of those that the loss is made of.
        """
        trees = [_unweighted_tree(ids[:1], [ids[1:]]) for ids in token_ids]
        with torch.no_grad():
            logps, _ = self.network.logprobs(pack(trees, self._world.device), 1.0)
        return [part.tolist() for part in torch.split(logps, [len(ids) - 1 for ids in token_ids])]

    @property
    def export_bytes(self) -> int:
        """What the tensors take that `export` writes."""
        return export_bytes(self.network, getattr(torch, self.settings.rollout.dtype))

    def export(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder in the engine's dtype: what is synced and what is kept."""
        export_model(self.network, folder, getattr(torch, self.settings.rollout.dtype))

    def export_adapters(self, folder: Path) -> None:
        """Write the adapters as a folder that peft loads; nothing where the model is trained whole."""
        self.network.save_adapters(folder)

    def perturbed(self) -> AbstractContextManager[None]:
        """Inside, every weight is moved by noise; after, all are back, to the bit."""
        return self.network.perturbed()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, in full precision."""
        return {
            "model": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "version": self.version,
            "bad_steps": self._bad_steps,
            "torch_random": torch.get_rng_state(),
        } | self._moved_reference()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.network.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.version = state["version"]
        self._bad_steps = state["bad_steps"]
        torch.set_rng_state(state["torch_random"])
        if self.reference is not None and "reference" in state:
            self.reference.load_state_dict(state["reference"])

    def _accumulate(self, packed: Packed, frozen: Frozen | None, denominator: float, sums: TokenSums) -> Frozen:
        """Add one micro-batch's share of the gradient and return what its later passes need not compute again.

        On the first pass the policy is its own old policy, so that the ratio is exactly 1. The model is told nothing
        of the objective but what it makes of each token: the gradient coefficient of its log-prob, and of its entropy.
        Nothing in here waits for the device.
        """
        settings = self.settings.update
        wants_entropy = frozen is None or settings.entropy_weight > 0
        logps, entropies = self.network.logprobs(packed, self.settings.rollout.temperature, entropy=wants_entropy)
        frozen = frozen or self._freeze(packed, logps, entropies, sums)
        policy_logps = logps.detach().requires_grad_()
        tokens = Tokens(
            policy_logp=policy_logps,
            proximal_logp=frozen.proximal_logps,
            sampler_logp=packed.sampler_logps,
            advantage=packed.advantages,
            completion=packed.completions,
            num_completions=packed.num_completions,
        )
        shares = packed.weights / denominator
        trust = self.correction(tokens)
        loss = (shares * trust * self.objective(tokens)).sum()
        [coefficients] = torch.autograd.grad(loss, policy_logps)
        clipped = (coefficients == 0) & (trust != 0)
        kl = None
        if frozen.ref_logps is not None:
            kl = self._kl(policy_logps, frozen.ref_logps)
            pull_back = settings.kl_weight * (shares * kl).sum()
            coefficients = coefficients + torch.autograd.grad(pull_back, policy_logps)[0]
            loss = loss + pull_back
        told = {logps: coefficients}
        if settings.entropy_weight and entropies is not None:
            told[entropies] = -settings.entropy_weight * shares
            loss = loss - settings.entropy_weight * (shares * entropies.detach()).sum()
        torch.autograd.backward(list(told), list(told.values()))
        sums.add_pass(loss.detach(), packed.advantages != 0, clipped, trust == 0, kl)
        return frozen

    def _freeze(self, packed: Packed, logps: Tensor, entropies: Tensor | None, sums: TokenSums) -> Frozen:
        """What holds of a micro-batch while the policy moves, from the log-probs of the policy that has not moved."""
        sums.add_old_policy(logps.detach() - packed.sampler_logps, entropies, packed.advantages != 0)
        if self.reference is None or self.settings.update.kl_in == "reward":
            return Frozen(logps.detach(), None)
        return Frozen(logps.detach(), self._reference_logps(self.reference, packed))

    def _freeze_later(self, batches: Sequence[Batch], frozen: Sequence[list[Frozen | None]], sums: TokenSums) -> None:
        """Freeze what batches hold on which the optimiser comes when the policy has moved already. The first batch's
        first pass has it anyway."""
        with torch.no_grad():
            for batch, known in zip(batches, frozen, strict=True):
                for index, trees in enumerate(batch.micro_batches):
                    if trees:
                        packed = pack(trees, self._world.device)
                        found = self.network.logprobs(packed, self.settings.rollout.temperature, entropy=True)
                        known[index] = self._freeze(packed, *found, sums)

    def _group_costs(self, group: ScoredGroup, reference: Reference) -> KlCosts:
        completions = [one.token_ids for one in group.group.completions]
        costs: list[Tensor] = []
        room = self.settings.update.tokens_per_micro_batch - len(group.group.prompt.token_ids)
        for part in _within_budget(completions, room):
            packed = pack([_unweighted_tree(group.group.prompt.token_ids, part)], self._world.device)
            logps, _ = self.network.logprobs(packed, self.settings.rollout.temperature)
            kl = self._kl(logps, self._reference_logps(reference, packed))
            costs += torch.split(self.settings.update.kl_weight * kl, [len(ids) for ids in part])
        return tuple(cost.cpu().numpy() for cost in costs)

    def _reference_logps(self, reference: Reference, packed: Packed) -> Tensor:
        with torch.no_grad():
            return reference.logprobs(packed, self.settings.rollout.temperature)[0]

    def _moved_reference(self) -> dict[str, Any]:
        """The reference's weights, where they are no longer those that the run began with."""
        if self.reference is None or not self.settings.update.reference_every:
            return {}
        return {"reference": self.reference.state_dict()}

    def _refresh_reference(self) -> None:
        """Every so many steps the reference becomes the policy (DeepSeek-R1, arXiv 2501.12948: every 400)."""
        if self.reference is not None and is_due(self.version, self.settings.update.reference_every):
            self.reference.load_state_dict(self.network.state_dict())

    def _step(self, has_signal: bool) -> tuple[float, bool]:
        """Move the weights, unless no rank has a gradient or it is not finite: the gradient's norm, and whether
        the weights stayed because of it."""
        if not has_signal:
            return 0.0, False
        trained = self.network.trained
        self._world.sum_gradients(trained)
        norm = float(torch.nn.utils.clip_grad_norm_(trained, self.settings.update.max_grad_norm))
        skipped = not math.isfinite(norm)
        self._bad_steps = self._bad_steps + 1 if skipped else 0
        if self._bad_steps >= self.settings.update.max_bad_steps:
            raise UserError(
                f"update.grad_norm={norm}: not finite {self._bad_steps} times in a row; lower update.lr, or "
                "look at the last completions for what the rewards did"
            )
        if not skipped:
            for group in self.optimiser.param_groups:
                group["lr"] = self._rate(self.version)
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return norm, skipped

    def _rate(self, step: int) -> float:
        return learning_rate(self.settings.update, step, self.settings.steps)


def _within_budget(completions: Sequence[TokenIds], budget: int) -> Iterator[list[TokenIds]]:
    """Neighbouring completions, together at most `budget` tokens; one that is longer is alone."""
    part: list[TokenIds] = []
    for ids in completions:
        if part and sum(map(len, part)) + len(ids) > budget:
            yield part
            part = []
        part.append(ids)
    yield part


def _unweighted_tree(prompt_ids: ArrayLike, completions: Sequence[ArrayLike]) -> PromptTree:
    """Completions that are only to be computed, not learnt from."""
    arrays = [np.asarray(ids, np.int32) for ids in completions]
    zeros = [np.zeros(len(ids), np.float32) for ids in arrays]
    branches = tuple(Branch(ids, zero, zero, weight=1.0) for ids, zero in zip(arrays, zeros, strict=True))
    return PromptTree(np.asarray(prompt_ids, np.int32), branches)

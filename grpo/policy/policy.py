"""The model that is trained: its update, and the ways its weights leave it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grpo.batching.micro_batches import split
from grpo.batching.pack import Packed, pack
from grpo.errors import UserError
from grpo.model.lora import open_network
from grpo.model.network import Network, Reference
from grpo.objectives.kl import ESTIMATORS
from grpo.objectives.tokens import Tokens
from grpo.parallel.world import World
from grpo.phases import PhaseClock
from grpo.policy.learning_rate import learning_rate
from grpo.policy.objective_choice import choose_correction, choose_objective
from grpo.policy.optimiser import make_optimiser
from grpo.policy.token_sums import TokenSums
from grpo.recipe.interval import is_due
from grpo.recipe.sections import ModelSection, RolloutSection, UpdateSection
from grpo.records import Batch, Branch, KlCosts, PromptTree, ScoredGroup


@dataclass(frozen=True)
class PolicySettings:
    """The parts of a recipe that shape the update."""

    model: ModelSection
    update: UpdateSection
    rollout: RolloutSection
    steps: int


class Policy:
    """What is trained, in fp32, AdamW, and an update that is exact whatever the micro-batches and ranks.

    `version` counts the updates that were made, skipped ones included: it is the step that was reached.
    """

    def __init__(self, folder: Path, settings: PolicySettings, world: World, clock: PhaseClock) -> None:
        self._settings = settings
        self._world = world
        self._clock = clock
        self._objective = choose_objective(settings.update)
        self._correction = choose_correction(settings.update)
        self._kl = ESTIMATORS[settings.update.kl_estimator]
        self._network = open_network(folder, settings.model, world.device)
        self._model = self._network.model
        if settings.model.gradient_checkpointing:
            self._network.recompute_activations()
        if settings.model.compile:
            self._network.compile_layers()
        moves = settings.update.reference_every > 0
        self._reference = self._network.reference(moves) if settings.update.kl_weight else None
        self._optimiser = make_optimiser(self._network.trained, settings.update)
        self.version = 0
        self._bad_steps = 0

    def update(self, *batches: Batch) -> dict[str, float]:
        """One step: in every inner epoch a pass of the optimiser for each batch.

        Returns metrics that are the same on all ranks; those with no token are left out.
        """
        with self._clock.phase("update"):
            tally = TokenSums(self._settings.update.inner_epochs * len(batches))
            shares = [[trees for trees in self._world.stride(batch.micro_batches) if trees] for batch in batches]
            proximal_logps = self._proximal_logps(shares, tally)
            num_skipped = 0
            for _ in range(self._settings.update.inner_epochs):
                for batch, share, known in zip(batches, shares, proximal_logps, strict=True):
                    for index, trees in enumerate(share):
                        packed = pack(trees, self._world.device)
                        known[index] = self._accumulate(packed, known[index], batch.denominator, tally)
                    norm, skipped = self._step(bool(batch.micro_batches))
                    num_skipped += skipped
            rate = self._rate(self.version)
            self.version += 1
            self._refresh_reference()
            stepped = {"update/grad_norm": norm, "update/skipped": float(num_skipped), "update/lr": rate}
            return stepped | tally.metrics(self._world)

    def kl_costs(self, scored: Sequence[ScoredGroup]) -> list[KlCosts]:
        """What `update.kl_in` takes off the reward of each token, for every completion of each group.

        Nothing, and for nothing, where the KL is in the loss.
        """
        settings = self._settings.update
        if self._reference is None or settings.kl_in == "loss":
            return [((),) * len(group.scores) for group in scored]
        with self._clock.phase("update"), torch.no_grad():
            return [self._group_costs(group, self._reference) for group in scored]

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probs, at temperature 1, of every token after the first of each sequence, in nats.

        All sequences go through one packed forward pass, as in the update: what is proven of these log-probs (the
        weight sync compares them with the engine's) is proven of those that the loss is made of.
        """
        trees = [_unweighted_tree(ids[:1], [ids[1:]]) for ids in token_ids]
        with torch.no_grad():
            logps, _ = self._network.logprobs(pack(trees, self._world.device), 1.0)
        return [part.tolist() for part in torch.split(logps, [len(ids) - 1 for ids in token_ids])]

    @property
    def network(self) -> Network:
        """What is trained. It may be replaced by one that does the same and tells of it."""
        return self._network

    @network.setter
    def network(self, network: Network) -> None:
        self._network = network

    @property
    def export_bytes(self) -> int:
        """What `export` writes, at most."""
        num_weights: int = sum(parameter.numel() for parameter in self._model.parameters())
        bits = torch.finfo(getattr(torch, self._settings.rollout.dtype)).bits
        return num_weights * bits // 8

    def export(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder in the engine's dtype: what is synced and what is kept.

        Of tensors that share their memory one is written, as in any Hugging Face folder.
        """
        dtype = getattr(torch, self._settings.rollout.dtype)
        tied = self._model.all_tied_weights_keys
        weights = {name: tensor.to("cpu", dtype) for name, tensor in self._network.weights() if name not in tied}
        self._model.save_pretrained(folder, state_dict=weights)
        # It names the type of the master weights; what loads the folder is to take the type of its tensors.
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"dtype": self._settings.rollout.dtype}, indent=2))

    def export_adapters(self, folder: Path) -> None:
        """Write the adapters as a folder that peft loads; nothing where the model is trained whole."""
        self._network.save_adapters(folder)

    def perturbed(self) -> AbstractContextManager[None]:
        """Inside, every weight is moved by noise; after, all are back, to the bit."""
        return self._network.perturbed()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, in full precision."""
        return {
            "model": self._network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "version": self.version,
            "bad_steps": self._bad_steps,
            "torch_random": torch.get_rng_state(),
        } | self._moved_reference()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._network.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.version = state["version"]
        self._bad_steps = state["bad_steps"]
        torch.set_rng_state(state["torch_random"])
        if self._reference is not None and "reference" in state:
            self._reference.load_state_dict(state["reference"])

    def _accumulate(
        self, packed: Packed, proximal_logps: Tensor | None, denominator: float, tally: TokenSums
    ) -> Tensor:
        """Add one micro-batch's share of the gradient and return the old policy's log-probs.

        On the first pass the policy is its own old policy, so that the ratio is exactly 1. The model is told nothing
        of the objective but what it makes of each token: the gradient coefficient of its log-prob, and of its entropy.
        """
        logps, entropies = self._network.logprobs(packed, self._settings.rollout.temperature)
        if proximal_logps is None:
            proximal_logps = _with_gap_counted(logps.detach(), packed, tally)
        settings = self._settings.update
        policy_logps = logps.detach().requires_grad_()
        tokens = Tokens(policy_logps, proximal_logps, packed.sampler_logps, packed.advantages, packed.completions)
        shares = packed.weights / denominator
        trust = self._correction(tokens)
        loss = (shares * trust * self._objective(tokens)).sum()
        [coefficients] = torch.autograd.grad(loss, policy_logps)
        clipped = (coefficients == 0) & (packed.advantages != 0) & (trust != 0)
        kl = None
        if self._reference is not None and settings.kl_in == "loss":
            kl = self._kl(policy_logps, self._reference_logps(self._reference, packed))
            pull_back = settings.kl_weight * (shares * kl).sum()
            coefficients = coefficients + torch.autograd.grad(pull_back, policy_logps)[0]
            loss = loss + pull_back
        told = {logps: coefficients}
        if settings.entropy_weight:
            told[entropies] = -settings.entropy_weight * shares
            loss = loss - settings.entropy_weight * (shares * entropies).sum()
        torch.autograd.backward(list(told), list(told.values()))
        tally.add(loss, entropies.detach(), clipped, trust == 0, kl)
        return proximal_logps

    def _proximal_logps(
        self, shares: Sequence[Sequence[Sequence[PromptTree]]], tally: TokenSums
    ) -> list[list[Tensor | None]]:
        """The old policy's log-probs of every micro-batch; None for those of the first batch, whose first pass has
        them anyway."""
        first, *later = shares
        known: list[list[Tensor | None]] = [[None] * len(first)]
        with torch.no_grad():
            for share in later:
                packed = [pack(trees, self._world.device) for trees in share]
                logps = [self._network.logprobs(one, self._settings.rollout.temperature)[0] for one in packed]
                known.append([_with_gap_counted(each, one, tally) for each, one in zip(logps, packed, strict=True)])
        return known

    def _group_costs(self, group: ScoredGroup, reference: Reference) -> KlCosts:
        completions = [one.token_ids for one in group.group.completions]
        tree = _unweighted_tree(group.group.prompt.token_ids, completions)
        costs: list[Tensor] = []
        for piece in split(tree, self._settings.update.tokens_per_micro_batch):
            packed = pack([piece], self._world.device)
            logps, _ = self._network.logprobs(packed, self._settings.rollout.temperature)
            kl = self._kl(logps, self._reference_logps(reference, packed))
            costs += torch.split(self._settings.update.kl_weight * kl, [len(one.token_ids) for one in piece.branches])
        return tuple(tuple(cost.tolist()) for cost in costs)

    def _reference_logps(self, reference: Reference, packed: Packed) -> Tensor:
        with torch.no_grad():
            return reference.logprobs(packed, self._settings.rollout.temperature)[0]

    def _moved_reference(self) -> dict[str, Any]:
        """The reference's weights, where they are no longer those that the run began with."""
        if self._reference is None or not self._settings.update.reference_every:
            return {}
        return {"reference": self._reference.state_dict()}

    def _refresh_reference(self) -> None:
        """Every so many steps the reference becomes the policy (DeepSeek-R1, arXiv 2501.12948: every 400)."""
        if self._reference is not None and is_due(self.version, self._settings.update.reference_every):
            self._reference.load_state_dict(self._network.state_dict())

    def _step(self, has_signal: bool) -> tuple[float, bool]:
        """Move the weights, unless no rank has a gradient or it is not finite: the gradient's norm, and whether
        the weights stayed because of it."""
        if not has_signal:
            return 0.0, False
        trained = self._network.trained
        self._world.sum_gradients(trained)
        norm = float(torch.nn.utils.clip_grad_norm_(trained, self._settings.update.max_grad_norm))
        skipped = not math.isfinite(norm)
        self._bad_steps = self._bad_steps + 1 if skipped else 0
        if self._bad_steps >= self._settings.update.max_bad_steps:
            raise UserError(
                f"update.grad_norm={norm}: not finite {self._bad_steps} times in a row; lower update.lr, or "
                "look at the last completions for what the rewards did"
            )
        if not skipped:
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate(self.version)
            self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return norm, skipped

    def _rate(self, step: int) -> float:
        return learning_rate(self._settings.update, step, self._settings.steps)


def _with_gap_counted(logps: Tensor, packed: Packed, tally: TokenSums) -> Tensor:
    """The old policy's log-probs, once their gap to the engine's is counted."""
    tally.add_gap(logps - packed.sampler_logps)
    return logps


def _unweighted_tree(prompt_ids: Sequence[int], completions: Sequence[Sequence[int]]) -> PromptTree:
    """Completions that are only to be computed, not learnt from."""
    branches = tuple(Branch(tuple(ids), (0.0,) * len(ids), (0.0,) * len(ids), weight=1.0) for ids in completions)
    return PromptTree(tuple(prompt_ids), branches)

"""The model that is trained: its forward pass, its update, and the ways its weights leave it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from grpo.config import ModelSection, RolloutSection, UpdateSection
from grpo.errors import UserError
from grpo.logprobs import token_logprobs
from grpo.losses import clipped_objective, k3_kl
from grpo.meter import Meter
from grpo.packing import Packed, pack
from grpo.tally import Tally
from grpo.types import Batch, Branch, PromptTree
from grpo.world import World

PERTURBATION = 0.05
EMBEDDING_PERTURBATION = 0.2
"""Size of the noise of `Policy.perturbed`, relative to each tensor's own. Deep inside a model a larger one is
amplified, with both sides' rounding, until it drowns what it is to show; at its ends it is not."""


@dataclass(frozen=True)
class PolicySettings:
    """The parts of a recipe that shape the update."""

    model: ModelSection
    update: UpdateSection
    rollout: RolloutSection
    steps: int


class Policy:
    """fp32 master weights, AdamW, and an update that is exact whatever the micro-batches and ranks.

    `version` counts the updates that were made, skipped ones included: it is the step that was reached.
    """

    def __init__(self, folder: Path, settings: PolicySettings, world: World, meter: Meter) -> None:
        self._settings = settings
        self._world = world
        self._meter = meter
        self._model = _load(folder, torch.float32, world.device)
        if settings.model.gradient_checkpointing:
            # transformers recomputes activations in training mode only; elsewhere that mode adds nothing but dropout.
            self._model.train()
            self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._reference = (
            _load(folder, _compute_dtype(settings.model), world.device).requires_grad_(False)
            if settings.update.kl_weight
            else None
        )
        self._optimiser = torch.optim.AdamW(
            _weight_decay_groups(self._model, settings.update.weight_decay),
            lr=settings.update.lr,
            betas=settings.update.betas,
            fused=True,
        )
        self.version = 0
        self._bad_steps = 0

    def update(self, batch: Batch) -> dict[str, float]:
        """One step on a batch. Returns metrics that are the same on all ranks; those with no token are left out."""
        with self._meter.phase("update"):
            [denominator] = self._world.sum([batch.denominator])
            num_rounds = self._world.max(len(batch.micro_batches))
            tally = Tally(self._settings.update.inner_epochs)
            num_skipped = 0
            proximal_logps: list[Tensor | None] = [None] * len(batch.micro_batches)
            for _ in range(self._settings.update.inner_epochs):
                for index, trees in enumerate(batch.micro_batches):
                    packed = pack(trees, self._world.device)
                    proximal_logps[index] = self._accumulate(packed, proximal_logps[index], denominator, tally)
                norm, skipped = self._step(num_rounds > 0)
                num_skipped += skipped
            rate = self._rate(self.version)
            self.version += 1
            stepped = {"update/grad_norm": norm, "update/skipped": float(num_skipped), "update/lr": rate}
            return stepped | tally.metrics(self._world)

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probs, at temperature 1, of every token after the first of each sequence, in nats.

        All sequences go through one packed forward pass, as in the update: what is proven of these log-probs (the
        weight sync compares them with the engine's) is proven of those that the loss is made of.
        """
        trees = [_bare_tree(ids) for ids in token_ids]
        with torch.no_grad():
            logps, _ = self._forward(self._model, pack(trees, self._world.device), temperature=1.0)
        return [part.tolist() for part in torch.split(logps, [len(ids) - 1 for ids in token_ids])]

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
        weights = {
            name: tensor.to("cpu", dtype) for name, tensor in self._model.state_dict().items() if name not in tied
        }
        self._model.save_pretrained(folder, state_dict=weights)
        # It names the type of the master weights; what loads the folder is to take the type of its tensors.
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"dtype": self._settings.rollout.dtype}, indent=2))

    @contextlib.contextmanager
    def perturbed(self) -> Iterator[None]:
        """Inside, every weight is moved by noise; after, all are back, to the bit."""
        kept = [parameter.detach().to("cpu", copy=True) for parameter in self._model.parameters()]
        ends = (self._model.get_input_embeddings().weight, self._model.get_output_embeddings().weight)
        noise = torch.Generator(device=self._world.device).manual_seed(0)
        try:
            with torch.no_grad():
                for parameter in self._model.parameters():
                    relative = EMBEDDING_PERTURBATION if any(parameter is end for end in ends) else PERTURBATION
                    random = torch.randn(parameter.shape, generator=noise, device=parameter.device)
                    parameter.add_(random * parameter.square().mean().sqrt() * relative)
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._model.parameters(), kept, strict=True):
                    parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on, in full precision."""
        return {
            "model": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "version": self.version,
            "bad_steps": self._bad_steps,
            "torch_random": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.version = state["version"]
        self._bad_steps = state["bad_steps"]
        torch.set_rng_state(state["torch_random"])

    def _accumulate(self, packed: Packed, proximal_logps: Tensor | None, denominator: float, tally: Tally) -> Tensor:
        """Add one micro-batch's share of the gradient and return the old policy's log-probs.

        On the first pass the policy is its own old policy, so that the ratio is exactly 1.
        """
        settings = self._settings.update
        logps, entropies = self._forward(self._model, packed)
        if proximal_logps is None:
            proximal_logps = logps.detach()
            tally.add_gap(proximal_logps - packed.sampler_logps)
        losses, clipped = clipped_objective(
            logps, proximal_logps, packed.advantages, settings.clip_low, settings.clip_high
        )
        kl = None
        if self._reference is not None:
            with torch.no_grad():
                ref_logps, _ = self._forward(self._reference, packed)
            kl = k3_kl(logps, ref_logps)
            losses = losses + settings.kl_weight * kl
        loss = (packed.weights * losses).sum() / denominator
        loss.backward()  # type: ignore[no-untyped-call]
        tally.add(loss, entropies, clipped, kl)
        return proximal_logps

    def _forward(self, model: Any, packed: Packed, temperature: float | None = None) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of the completion tokens, (N,), at the sampling temperature unless told another."""
        with self._autocast():
            hidden = model.base_model(
                input_ids=packed.token_ids,
                position_ids=packed.position_ids,
                attention_mask=packed.mask,
                use_cache=False,
            ).last_hidden_state[0]
            return token_logprobs(
                hidden[packed.predictors],
                packed.targets,
                model.get_output_embeddings(),
                temperature or self._settings.rollout.temperature,
            )

    def _step(self, has_signal: bool) -> tuple[float, bool]:
        """Move the weights, unless no rank has a gradient or it is not finite: the gradient's norm, and whether
        the weights stayed because of it."""
        if not has_signal:
            return 0.0, False
        self._world.sum_gradients(self._model.parameters())
        norm = float(torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.update.max_grad_norm))
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

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self._world.device.type, torch.bfloat16, enabled=self._settings.model.compute == "bf16")


def learning_rate(settings: UpdateSection, step: int, num_steps: int) -> float:
    """The rate of update `step`, counted from 0: linear warm-up, then constant or a decay to zero at the end."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, num_steps - settings.warmup_steps)
    if settings.schedule == "linear":
        return settings.lr * (1 - progress)
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr


def _load(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    # transformers lets the first rank alone write; here every rank writes, for the engine that is its own.
    model.should_save_on_this_rank = lambda is_main_process: is_main_process
    return model.to(device).eval()


def _compute_dtype(settings: ModelSection) -> torch.dtype:
    return torch.bfloat16 if settings.compute == "bf16" else torch.float32


def _bare_tree(token_ids: Sequence[int]) -> PromptTree:
    """A sequence whose first token is the prompt and whose rest is the one completion."""
    rest = tuple(token_ids[1:])
    return PromptTree(tuple(token_ids[:1]), (Branch(rest, (0.0,) * len(rest), advantage=0.0, weight=1.0),))


def _weight_decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; gains and biases do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]

"""Weights to the engine, and the proof that they arrived.

Weights travel as a Hugging Face folder in shared memory: the very folder that a checkpoint holds, so that there
is one way out of the trainer. After every load the engine's log-probs on a fixed probe are compared with the
trainer's. Because one small step changes log-probs by less than the two sides' rounding differs, the first load of
a run is preceded by a rehearsal: perturbed weights, whose log-probs are far from the true ones, must come through.
An engine that keeps any stale part (a packed copy of tied embeddings, say) fails there, before any completion.

All ranks sync at the same steps: on each node one of them writes, and the engines of all read what it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from grpo.errors import SyncError
from grpo.parallel.world import World
from grpo.records import TokenIds
from grpo.rollout.engines.protocol import Engine
from grpo.rollout.weight_sync.transport import transfer

PROBE_PROMPTS = 2
PROBE_TOKENS = 128
"""The probe: so many prompts of the training set, and so many tokens of each at most. It is computed twice for every
sync, and prompts of one template share most of their tokens: more of them say the same again."""
REHEARSAL_MARGIN = 3.0
"""The rehearsal's perturbation must move the probe by at least this many tolerances, or it proves nothing."""


class Sync(Protocol):
    """Makes the engine hold the weights that completions are to be written with."""

    @property
    def version(self) -> int:
        """Which weights those are."""

    def bring(self) -> float:
        """See to it, prove it, and return the proof's gap in nats a token."""


class SyncedPolicy(Protocol):
    """What the sync needs of the trainer's side."""

    version: int

    @property
    def export_bytes(self) -> int: ...

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> Sequence[ArrayLike]: ...

    def export(self, folder: Path) -> None: ...

    def perturbed(self) -> AbstractContextManager[None]: ...


class WeightSync:
    """Brings the policy's weights to the engine and proves it.

    `probe` is what both sides are asked for log-probs of; they may differ by `tolerance` nats a token (mean absolute).
    """

    def __init__(
        self,
        engine: Engine,
        policy: SyncedPolicy,
        world: World,
        probe: Sequence[Sequence[int] | TokenIds],
        tolerance: float,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._world = world
        self._probe: list[TokenIds] = [np.array(ids, np.int32) for ids in probe]
        self._tolerance = tolerance
        self._loaded: int | None = None

    @property
    def version(self) -> int:
        return self._policy.version

    def bring(self) -> float:
        """Load the policy into the engine unless it is there already, and prove it. Returns the probe's gap.

        Raises SyncError when engine and trainer disagree by more than the tolerance.
        """
        if self._loaded is None:
            self._rehearse()
        if self._loaded != self.version:
            self._load()
        gap = self._prove(self._policy_logprobs(), f"policy version {self.version}")
        self._loaded = self.version
        return gap

    def _policy_logprobs(self) -> Sequence[ArrayLike]:
        return self._policy.logprobs([ids.tolist() for ids in self._probe])

    def _rehearse(self) -> None:
        true = self._policy_logprobs()
        with self._policy.perturbed():
            perturbed = self._policy_logprobs()
            moved = mean_gap(true, perturbed)
            if moved < REHEARSAL_MARGIN * self._tolerance:
                raise SyncError(
                    f"weight sync: the rehearsal moved the probe by {moved:.3f} nats only, too little to prove "
                    f"anything at rollout.sync_tolerance={self._tolerance}; lower the tolerance"
                )
            self._load()
            self._prove(perturbed, "the rehearsal with perturbed weights")

    def _load(self) -> None:
        transfer(self._world, self._policy.export_bytes, self._policy.export, self._engine.load)

    def _prove(self, expected: Sequence[ArrayLike], what: str) -> float:
        gap = mean_gap(expected, self._engine.logprobs(self._probe))
        if not gap <= self._tolerance:
            raise SyncError(
                f"weight sync: {what}: the engine's log-probs differ from the trainer's by {gap:.4f} nats a "
                f"token, more than rollout.sync_tolerance={self._tolerance}; the engine does not hold these "
                "weights, so nothing it writes may be learnt from"
            )
        return gap


class LoadedOnce:
    """For an engine that already holds the only weights there are: a sync with nothing to do."""

    version = 0

    def bring(self) -> float:
        """Nothing to bring, and no other side to compare with."""
        return 0.0


def mean_gap(ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike]) -> float:
    """Mean absolute difference over all tokens; NaN on either side stays NaN, and so fails every bound.

    Raises ValueError where the two sides are not of the same sequences and lengths.
    """
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(ours, theirs, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        raise ValueError(f"log-probs of {[a.size for a, _ in pairs]} and of {[b.size for _, b in pairs]} tokens")
    return float(np.abs(np.concatenate([a - b for a, b in pairs])).mean())

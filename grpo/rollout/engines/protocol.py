"""What every engine can do: take weights, tell log-probs, write completions. Token ids in, token ids out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from grpo.records import Finish


@dataclass(frozen=True)
class Request:
    """One prompt and a seed for each completion that is wanted of it."""

    token_ids: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. Nothing that would renormalise only the engine's side (top-p, top-k, penalties)
    can be said here, so that the trainer's log-probs are of the same distribution."""

    temperature: float
    max_new_tokens: int
    end_ids: tuple[int, ...]
    """Any of these ends a completion and is its last token."""
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """One completion as it left the engine: log-probs in nats, at the sampling temperature."""

    token_ids: tuple[int, ...]
    logps: tuple[float, ...]
    finish: Finish


class Engine(Protocol):
    """Writes completions with the weights that it was given last."""

    description: dict[str, str]
    """Name and version of what generates, for the run's folder."""

    def load(self, folder: Path) -> None:
        """Replace all weights by those of a Hugging Face folder. Cached prefixes of the old ones are dropped."""

    def logprobs(self, token_ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probs, at temperature 1, of every token after the first of each sequence."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        """Each request's number with its completions, as soon as all of them are written, in any order."""

    def close(self) -> None:
        """End everything that was started. Safe to call twice."""


def derive_seed(*parts: object) -> int:
    """A seed from everything that names a completion: neighbouring names have unrelated seeds (62 bits)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2

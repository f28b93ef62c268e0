"""What every engine can do: take weights, tell log-probs, write completions. Token ids in, token ids out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from grpo.records import Finish, Floats, TokenIds


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt, and a seed for each completion that is wanted of it."""

    token_ids: TokenIds
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    There is no top-p, top-k or penalty here: these renormalise the engine's distribution and not the trainer's, so
    that their log-probs would no longer be of the same distribution.
    """

    temperature: float
    max_new_tokens: int
    end_ids: tuple[int, ...]
    """Any of these ends a completion and is its last token."""
    stop: tuple[str, ...] = ()
    """Any of these strings ends a completion; the token that completes the string is its last one."""


@dataclass(frozen=True, eq=False)
class Written:
    """One completion as it left the engine: log-probs in nats, at the sampling temperature, one for each token."""

    token_ids: TokenIds
    logps: Floats
    finish: Finish


class Engine(Protocol):
    """Writes completions with the weights that it was given last."""

    description: dict[str, str]
    """Name and version of what generates, for the run's folder."""

    def load(self, folder: Path) -> None:
        """Replace all weights by those of a Hugging Face folder, of one file or several.

        What was cached of prompts under the old weights is dropped. A folder that does not hold the model's whole set
        of tensors, or holds others, is an error.
        """

    def logprobs(self, token_ids: Sequence[TokenIds]) -> list[Floats]:
        """Log-probs, at temperature 1, of every token after the first of each sequence."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Written, ...]]]:
        """Each request's number with its completions, as soon as all of them are written, in any order."""

    def close(self) -> None:
        """End everything that was started. Safe to call twice."""


def derive_seed(*parts: object) -> int:
    """A seed from everything that names a completion: neighbouring names have unrelated seeds (62 bits)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2

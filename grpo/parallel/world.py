"""All ranks of a run. The only file that talks to torch.distributed; a world of one is an ordinary world."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import distributed

from grpo.errors import UserError

Item = TypeVar("Item")


class World(Protocol):
    """Which rank this is, of how many, on what device, and how ranks add and collect."""

    rank: int
    size: int
    device: torch.device

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This rank's part of a list that is the same on all ranks: every size-th item."""

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over ranks."""

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over ranks; a missing one counts as zeros."""

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """All ranks' lists on every rank, interleaved: of lists that `share` made, the one that they were made of."""

    def barrier(self) -> None:
        """Wait until every rank is here."""

    def close(self) -> None:
        """Leave the world."""


class SoleWorld:
    """A world of one rank."""

    rank = 0
    size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def share(self, items: Sequence[Item]) -> list[Item]:
        return list(items)

    def sum(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """One rank's gradients are the sum already."""

    def gather(self, items: Sequence[Item]) -> list[Item]:
        return list(items)

    def barrier(self) -> None:
        """Nobody to wait for."""

    def close(self) -> None:
        """Nothing was joined."""


class DistributedWorld:
    """The ranks that torchrun started, each with a whole copy of the model (data parallel)."""

    def __init__(self, device: torch.device) -> None:
        self.rank = int(os.environ["RANK"])
        self.size = int(os.environ["WORLD_SIZE"])
        self.device = device
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def share(self, items: Sequence[Item]) -> list[Item]:
        return list(items[self.rank :: self.size])

    def sum(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        result: list[float] = total.tolist()
        return result

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)

    def gather(self, items: Sequence[Item]) -> list[Item]:
        shares: list[Any] = [None] * self.size
        distributed.all_gather_object(shares, list(items))
        longest = max(len(share) for share in shares)
        return [share[index] for index in range(longest) for share in shares if index < len(share)]

    def barrier(self) -> None:
        distributed.barrier()

    def close(self) -> None:
        distributed.destroy_process_group()


def join_world(wanted: str) -> World:
    """The world that the environment describes: torchrun's ranks, or this process alone.

    `wanted` is ``auto``, ``cpu`` or ``cuda``; each rank takes the GPU of its local number.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device=cuda: this machine has no CUDA device; set run.device=cpu or auto")
    cuda = wanted != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    return DistributedWorld(device) if "WORLD_SIZE" in os.environ else SoleWorld(device)


def ranks_agree(world: World, fingerprint: float) -> bool:
    """Whether a number that must be the same on every rank is."""
    values = world.gather([fingerprint])
    return all(value == values[0] for value in values)

"""All ranks of a run. The only file that talks to torch.distributed; a world of one is an ordinary world.

Ranks meet in two ways. What is on the device (gradients) goes over the device's own backend. Everything else, and every
wait for a rank that is busy alone, goes over gloo on the CPU, so that no NCCL collective ever stands open while the
first rank writes a checkpoint or checks the golds.
"""

from __future__ import annotations

import os
import pickle
import platform
from collections.abc import Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import distributed

from grpo.errors import UserError

Item = TypeVar("Item")

RANK_TIMEOUT_S = 3600.0
"""The longest that a rank waits for another one, unless the recipe says otherwise (`run.rank_timeout_s`)."""


class World(Protocol):
    """Which rank this is, of how many, on what device, and how ranks add and collect."""

    rank: int
    size: int
    local_rank: int
    """This rank's number among those of its node."""
    local_size: int
    """Ranks on this node."""
    device: torch.device

    def stride(self, items: Sequence[Item]) -> list[Item]:
        """This rank's part of a list that is the same on all ranks: every size-th item, from the rank-th on."""

    def interleave(self, items: Sequence[Item]) -> list[Item]:
        """All ranks' lists on every rank, one item of each in turn: of lists that `stride` made, the whole again."""

    def gather(self, item: Item) -> list[Item]:
        """One item of each rank, in the ranks' order, on every rank."""

    def gather_on_first(self, item: Item) -> list[Item]:
        """One item of each rank, in the ranks' order, on the first rank; nothing on the others."""

    def gather_on_node(self, item: Item) -> list[Item]:
        """One item of each rank of this node, in the ranks' order, on all of them."""

    def broadcast(self, item: Item) -> Item:
        """The first rank's item, on every rank."""

    def exchange(self, parcels: Sequence[Item]) -> list[Item]:
        """Hand the n-th parcel to rank n: what each rank had for this one, in the ranks' order."""

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over ranks, in double precision."""

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its sum over ranks; a missing one counts as zeros."""

    def barrier(self) -> None:
        """Wait until every rank is here."""

    def node_barrier(self) -> None:
        """Wait until every rank of this node is here."""

    def __enter__(self) -> Self:
        """A world is left at the end of its ``with`` block, whatever happened inside."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SoleWorld:
    """A world of one rank."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def stride(self, items: Sequence[Item]) -> list[Item]:
        return list(items)

    def interleave(self, items: Sequence[Item]) -> list[Item]:
        return list(items)

    def gather(self, item: Item) -> list[Item]:
        return [item]

    def gather_on_first(self, item: Item) -> list[Item]:
        return [item]

    def gather_on_node(self, item: Item) -> list[Item]:
        return [item]

    def broadcast(self, item: Item) -> Item:
        return item

    def exchange(self, parcels: Sequence[Item]) -> list[Item]:
        return list(parcels)

    def sum(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """One rank's gradients are the sum already."""

    def barrier(self) -> None:
        """Nobody to wait for."""

    def node_barrier(self) -> None:
        """Nobody to wait for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was joined."""


class DistributedWorld:
    """The ranks that torchrun started, each with a whole copy of the model (data parallel).

    `timeout_s` bounds every wait of one rank for another.
    """

    def __init__(self, device: torch.device, timeout_s: float = RANK_TIMEOUT_S) -> None:
        self.rank = int(os.environ["RANK"])
        self.size = int(os.environ["WORLD_SIZE"])
        self.device = device
        timeout = timedelta(seconds=timeout_s)
        cuda = device.type == "cuda"
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=timeout, device_id=device if cuda else None)
        # A group of its own: a busy first rank holds up no collective of the device's backend.
        self._objects = distributed.new_group(backend="gloo", timeout=timeout)
        self._join_node(timeout)

    def stride(self, items: Sequence[Item]) -> list[Item]:
        return list(items[self.rank :: self.size])

    def interleave(self, items: Sequence[Item]) -> list[Item]:
        lists = self.gather(list(items))
        longest = max(map(len, lists))
        return [one[index] for index in range(longest) for one in lists if index < len(one)]

    def gather(self, item: Item) -> list[Item]:
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, item, group=self._objects)
        return found

    def gather_on_first(self, item: Item) -> list[Item]:
        found: list[Any] = [None] * self.size
        distributed.gather_object(item, found if self.rank == 0 else None, dst=0, group=self._objects)
        return found if self.rank == 0 else []

    def gather_on_node(self, item: Item) -> list[Item]:
        found: list[Any] = [None] * distributed.get_world_size(self._node)
        distributed.all_gather_object(found, item, group=self._node)
        return found

    def broadcast(self, item: Item) -> Item:
        box: list[Any] = [item]
        distributed.broadcast_object_list(box, src=0, group=self._objects)
        received: Item = box[0]
        return received

    def exchange(self, parcels: Sequence[Item]) -> list[Item]:
        packed = [pickle.dumps(parcel, protocol=pickle.HIGHEST_PROTOCOL) for parcel in parcels]
        sizes = [len(one) for one in packed]
        incoming = [row[self.rank] for row in self.gather(sizes)]
        sent = torch.frombuffer(bytearray(b"".join(packed)), dtype=torch.uint8)
        received = torch.empty(sum(incoming), dtype=torch.uint8)
        distributed.all_to_all_single(received, sent, incoming, sizes, group=self._objects)
        parts = torch.split(received, incoming)
        return [pickle.loads(part.numpy().tobytes()) for part in parts]

    def sum(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total, group=self._objects)
        result: list[float] = total.tolist()
        return result

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)

    def barrier(self) -> None:
        distributed.barrier(group=self._objects)

    def node_barrier(self) -> None:
        distributed.barrier(group=self._node)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave. After an error nobody waits for a rank that may be gone: the groups are aborted, not destroyed."""
        if error is None:
            distributed.destroy_process_group()
        else:
            distributed.distributed_c10d._abort_process_group()

    def _join_node(self, timeout: timedelta) -> None:
        """Find the ranks of this node, by its name and by the number that torchrun has given it.

        Every rank takes part in making every node's group, as torch wants it; so nodes may have different numbers of
        ranks, and a launcher need not say how many.
        """
        nodes = self.gather((platform.node(), os.environ.get("GROUP_RANK", "")))
        for node in dict.fromkeys(nodes):
            ranks = [rank for rank, other in enumerate(nodes) if other == node]
            group = distributed.new_group(ranks, timeout=timeout, backend="gloo")
            if self.rank in ranks:
                self._node, self.local_rank, self.local_size = group, ranks.index(self.rank), len(ranks)


def join_world(wanted: str, timeout_s: float = RANK_TIMEOUT_S) -> World:
    """The world that the environment describes: torchrun's ranks, or this process alone.

    `wanted` is ``auto``, ``cpu`` or ``cuda``; each rank takes the GPU of its local number.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device=cuda: this machine has no CUDA device; set run.device=cpu or auto")
    cuda = wanted != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    return DistributedWorld(device, timeout_s) if "WORLD_SIZE" in os.environ else SoleWorld(device)

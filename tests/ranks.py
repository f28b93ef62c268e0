"""Two ranks on this machine, each a process of its own that meets the other over gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from grpo.parallel.world import DistributedWorld, join_world

DEADLINE_S = 60
SLOW_IMPORTS = ["torch", "torch.distributed", "transformers.models.llama.modeling_llama"]
"""Imported once, by the server that forks the ranks."""

Job = Callable[..., Any]


def on_two_ranks(folder: Path, job: Job, *arguments: object) -> list[Any]:
    """What `job(world, *arguments)` returns on either rank, each a process of its own."""
    folder.mkdir()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_IMPORTS)
    port = free_port()
    ranks = [context.Process(target=be_rank, args=(rank, port, folder, job, arguments)) for rank in range(2)]
    for process in ranks:
        process.start()
    deadline = time.monotonic() + DEADLINE_S
    for process in ranks:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    assert codes == [0, 0], f"exit codes of the ranks (None: still at work after {DEADLINE_S} s)"
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def be_rank(rank: int, port: int, folder: Path, job: Job, arguments: Sequence[object]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = join_world("cpu")
    assert isinstance(world, DistributedWorld)
    with world:
        torch.save(job(world, *arguments), folder / f"{rank}.pt")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port

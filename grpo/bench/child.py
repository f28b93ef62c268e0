"""A process for one thing to measure, run as a module: it opens that thing and does what it is told."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from grpo.errors import UserError
from rewards.workers.process import connect_to_parent

KINDS = {
    "ours": "grpo.bench.sides:OurUpdate",
    "padded": "grpo.bench.sides:PaddedUpdate",
    "matmul": "grpo.bench.matmul:MatmulRate",
    "model": "grpo.bench.random_model:RandomModel",
    "writer": "grpo.bench.whole:Writer",
    "step": "grpo.bench.whole:WholeStep",
    "command": "grpo.bench.external:Command",
}


def serve(connection: Connection) -> None:
    """The first message names what to open; the others are its methods. Each is answered."""
    kind, job = connection.recv()
    opened: Any = None
    try:
        opened = open_kind(kind, job)
        connection.send(("done", None))
        while True:
            method, arguments = connection.recv()
            connection.send(("done", getattr(opened, method)(*arguments)))
    except EOFError:
        return
    except UserError as error:
        connection.send(("refused", str(error)))
    except Exception as error:
        connection.send(("no memory" if _lacks_memory(error) else "failed", traceback.format_exc()))
    finally:
        if hasattr(opened, "close"):
            opened.close()


def open_kind(kind: str, job: Any) -> Any:
    """What a kind of job needs, ready."""
    module, name = KINDS[kind].split(":")
    return getattr(import_module(module), name)(job)


def _lacks_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return on_gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


if __name__ == "__main__":
    serve(connect_to_parent())

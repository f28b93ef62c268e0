"""What torch.compile needs of a machine, and how often it may compile one function anew."""

from __future__ import annotations

import importlib.util
import inspect
import os
import shutil
from typing import Any

import torch

RECOMPILE_LIMIT = 64
"""Variants of one compiled function. torch allows 8, and then runs what is not compiled, with no more than a line in
its log; passes with and without gradients, in bf16 and fp32, over one block of tokens and over several, policy and
reference, may need more."""


def compile_options() -> dict[str, Any]:
    """What is to be handed to torch.compile for `RECOMPILE_LIMIT` to hold.

    torch's configuration is one for each thread, and activations are recomputed in a thread of the backward pass; so
    the limit goes with the function where torch (2.13) takes it there, and into the configuration elsewhere (2.11).
    """
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        return {"recompile_limit": RECOMPILE_LIMIT}
    config: Any = torch._dynamo.config
    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(config, name):
            setattr(config, name, max(RECOMPILE_LIMIT, getattr(config, name)))
            break
    return {}


def missing_for_triton() -> str | None:
    """What torch.compile lacks here to make kernels for a GPU, in words; None where nothing is missing."""
    if not importlib.util.find_spec("triton"):
        return "triton is not installed"
    # Triton builds its launcher with the compiler that CC names, or the first of these.
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang", "cc"]
    if not any(map(shutil.which, compilers)):
        return f"no C compiler ({', '.join(compilers)}) is installed"
    return None

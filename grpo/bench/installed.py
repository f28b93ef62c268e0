"""Which packages a Python has, found without importing them."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

from grpo.errors import UserError

_LIMIT_S = 60.0
_SCRIPT = (
    "import importlib.util as u, json; print(json.dumps({n: u.find_spec(n) is not None for n in ('trl', 'vllm')}))"
)


def has_vllm() -> bool:
    """Whether this Python can generate with vLLM."""
    return find_spec("vllm") is not None


def peer_has_vllm(python: Path) -> bool:
    """Whether TRL's Python can. Raises UserError where it has no TRL."""
    try:
        done = subprocess.run(
            [str(python), "-P", "-c", _SCRIPT],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        found: dict[str, bool] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UserError(
            f"--trl-python={python}: does not run ({error}); give the path of a Python that has trl"
        ) from None
    if not found["trl"]:
        raise UserError(
            f"--against=trl: trl is not installed in {python}; pip install trl there, or name a Python that has it "
            "with --trl-python"
        )
    return found["vllm"]

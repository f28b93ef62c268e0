"""A command of another Python, inside a process group that ends with the one who asked for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CommandJob:
    words: tuple[str, ...]
    env: Mapping[str, str]
    """Added to this process's environment."""


class Command:
    """What it says goes where this process's own words go."""

    def __init__(self, job: CommandJob) -> None:
        self._job = job

    def run(self) -> int:
        """Run it to its end; the exit code."""
        environment = {**os.environ, **self._job.env}
        return subprocess.run(self._job.words, env=environment, stdin=subprocess.DEVNULL, check=False).returncode

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import write_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The folder of a made-up run of 80 steps."""
    return write_run(tmp_path / "countdown-demo")

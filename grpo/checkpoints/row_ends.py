"""Where each row file of a run ended when a checkpoint was made.

A checkpoint keeps this as ``rows.json``: ``{"metrics.jsonl": 5310, …}``, in bytes, 0 for a file that was not there. A
run that goes on from the checkpoint cuts its row files off there, without reading them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from grpo.rows import ROW_FILES

FILE = "rows.json"


def write_row_ends(run_dir: Path, checkpoint: Path) -> None:
    """Put the row files on the disk and keep their sizes in the checkpoint."""
    ends = {name: _flushed_size(run_dir / name) for name in ROW_FILES}
    (checkpoint / FILE).write_text(json.dumps(ends))


def read_row_ends(checkpoint: Path) -> Mapping[str, int] | None:
    """What `write_row_ends` kept; None in a checkpoint from before this was kept."""
    file = checkpoint / FILE
    ends: Mapping[str, int] | None = json.loads(file.read_text()) if file.exists() else None
    return ends


def _flushed_size(file: Path) -> int:
    if not file.exists():
        return 0
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
        return os.fstat(handle.fileno()).st_size

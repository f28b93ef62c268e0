"""One HTML file that shows a run: what it learned, how, and what the model wrote.

The file carries all it needs, the plotting library included, and its content policy lets nothing else be loaded or run.
"""

from __future__ import annotations

import os
from pathlib import Path

from grpo.report.page import page_of
from grpo.report.read import ReportError, read_run

__all__ = ["ReportError", "write_report"]


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run's folder and return its path.

    Raises ReportError for a folder that is no run. The file appears whole or not at all.
    """
    target = run_dir / "report.html"
    partial = run_dir / f"report.html.{os.getpid()}.tmp"
    page = page_of(read_run(run_dir))
    partial.write_text(page, encoding="utf-8", errors="replace")
    partial.replace(target)
    return target

"""One HTML file that shows a run: what it learned, how, and what the model wrote.

The page needs no network and no scripts; a small script of its own adds the read-out of values,
and the page's content policy lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from grpo.report import headline
from grpo.report.charts import figure
from grpo.report.completions import flips, flips_html, pick, step_html
from grpo.report.evaluations import SourceChange, source_changes
from grpo.report.panels import sections
from grpo.report.read import ReportError, Run, number, read_run

__all__ = ["ReportError", "write_report"]

_NO_WAY_OUT = "base-uri 'none'; form-action 'none'"


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run's folder and return its path.

    Raises ReportError for a folder that is no run. The file appears whole or not at all.
    """
    target = run_dir / "report.html"
    partial = run_dir / f"report.html.{os.getpid()}.tmp"
    page = _page(read_run(run_dir))
    partial.write_text(page, encoding="utf-8", errors="replace")
    partial.replace(target)
    return target


def _page(run: Run) -> str:
    style, script = (files(__name__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; {_NO_WAY_OUT}"
    name = escape(run.folder.resolve().name)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name} · GRPO run</title><style>{style}</style></head><body><main>{_body(run, name)}</main>"
        f"<script>{script}</script></body></html>\n"
    )


def _body(run: Run, name: str) -> str:
    sources = source_changes(run.rows)
    return (
        f'<header class="top"><p class="kind">GRPO run</p><h1>{name}</h1>'
        f'<p class="verdict">{escape(headline.verdict(sources, run.training))}</p></header>'
        f'<div class="tiles">{headline.tiles(sources, run.training)}</div>{_facts(run)}'
        f"{_tables(sources)}{_charts(run, sources)}"
        f"{_flips(run)}{_completions(run)}{_files(run)}{_foot(run)}"
    )


def _facts(run: Run) -> str:
    facts = {
        "model": _model(run.recipe),
        "engine": _engine(run.environment.get("engine")),
        "device": run.environment.get("device"),
        "commit": str(run.environment.get("commit") or "")[:12],
        "steps": _steps(run),
        "wall time": _wall_time(run),
    }
    items = "".join(
        f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items() if value
    )
    return f'<dl class="facts">{items}</dl>'


def _model(recipe: Mapping[str, Any]) -> str:
    model = recipe.get("model")
    return str(model.get("path", "")) if isinstance(model, Mapping) else ""


def _engine(engine: object) -> str:
    if isinstance(engine, Mapping):
        return " ".join(str(engine[key]) for key in ("name", "version") if engine.get(key))
    return str(engine or "")


def _steps(run: Run) -> str:
    return f"{run.training[-1]['step']:,}" if run.training else "none yet"


def _wall_time(run: Run) -> str:
    """From the first to the last row, and the first row's own step before it."""
    times = [time for row in run.rows if (time := number(row, "time_unix")) is not None]
    if not times:
        return ""
    before_s = number(run.rows[0], "time/step_s") or 0.0
    return str(timedelta(seconds=round(times[-1] - times[0] + before_s)))


def _tables(sources: Sequence[SourceChange]) -> str:
    return _section("Before and after", "tables", "".join(headline.table(source) for source in sources))


def _charts(run: Run, sources: Sequence[SourceChange]) -> str:
    found = sections(run.rows, sources)
    return "".join(_section(name, "charts", "".join(figure(chart) for chart in charts)) for name, charts in found)


def _flips(run: Run) -> str:
    return _section("Held-out problems", "", "".join(flips_html(found) for found in flips(run.folder / "evals.jsonl")))


def _completions(run: Run) -> str:
    picks = pick(run.folder / "completions.jsonl")
    ends = (0, len(picks) - 1)
    return _section("Completions", "", "".join(step_html(found, i in ends) for i, found in enumerate(picks)))


def _files(run: Run) -> str:
    environment = json.dumps(run.environment, indent=2, ensure_ascii=False, default=str) if run.environment else ""
    named = (("Resolved recipe", run.recipe_text), ("Environment", environment))
    return "".join(
        f'<details class="file"><summary>{name}</summary><pre tabindex="0">{escape(text)}</pre></details>'
        for name, text in named
        if text
    )


def _foot(run: Run) -> str:
    bad = f" {run.num_unreadable} line(s) of metrics.jsonl could not be read." if run.num_unreadable else ""
    return (
        '<footer class="foot">Faint lines are the single steps; bold lines are centred moving averages over '
        "about the square root of the number of steps. Beside a name stands the last value of its bold line, "
        f"or, for bars, the mean over the run. Whiskers are 95% intervals.{bad}</footer>"
    )


def _section(name: str, kind: str, inside: str) -> str:
    return f'<section><h2>{name}</h2><div class="{kind}">{inside}</div></section>' if inside else ""

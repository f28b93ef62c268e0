"""The GPU check's results as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

GB = 1e9
Row = dict[str, Any]


def as_markdown(results: Row) -> str:
    """All of it; parts that are not there yet are left out."""
    parts = results["parts"]
    updates = [row for name, part in parts.items() if name.startswith("update") for row in part["rows"]]
    sections = [
        _table(["part", "what became of it", "seconds"], [_state_row(name, part) for name, part in parts.items()]),
        _facts(_rows(parts, "device")),
        _tests(_rows(parts, "tests")),
        _updates(updates),
        _memory(updates),
        _facts(_rows(parts, "flex")),
        _facts(_rows(parts, "export")),
        *(_output(name, part) for name, part in parts.items() if part.get("output")),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _rows(parts: Row, name: str) -> list[Row]:
    rows: list[Row] = parts[name]["rows"] if name in parts else []
    return rows


def _state_row(name: str, part: Row) -> list[str]:
    return [name, part["state"], f"{part['seconds']:.0f}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _facts(rows: Sequence[Row]) -> str:
    """Rows of few numbers, each a line of names and values."""
    return "\n".join("- " + ", ".join(f"{name} {_short(value)}" for name, value in row.items()) for row in rows)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _tests(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    counts = {kind: sum(row["outcome"] == kind for row in rows) for kind in ("passed", "failed", "skipped")}
    lines = ["tests/gpu: " + ", ".join(f"{number} {kind}" for kind, number in counts.items())]
    lines += [f"- failed: `{row['test']}`: {row['message']}" for row in rows if row["outcome"] == "failed"]
    return "\n".join(lines)


def _updates(rows: Sequence[Row]) -> str:
    head = ["model", "completions", "setting", "update", "MFU", "tokens/s", "forward, backward, optimiser", "peak"]
    return _table(head, [_update_row(row) for row in rows])


def _update_row(row: Row) -> list[str]:
    first = [row["size"], row["shape"], row["setting"]]
    if "error" in row:
        return [*first, row["error"], "", "", "", ""]
    shares = ", ".join(f"{row[f'{phase}_frac']:.0%}" for phase in ("forward", "backward", "optimiser"))
    rate = row["tokens"] / row["seconds"]
    return [*first, f"{row['seconds']:.3f} s", _percent(row["mfu"]), f"{rate:,.0f}", shares, _gb(row["peak_bytes"])]


def _memory(rows: Sequence[Row]) -> str:
    """What the sum says beside what was measured."""
    measured = [row for row in rows if "error" not in row]
    named = ("weights", "gradients", "optimiser", "compute_copies", "head_gradient", "activations", "logits")
    head = ["model", "completions", "setting", *named, "sum", "measured", "sum / measured"]
    return _table(head, [_memory_row(row, named) for row in measured])


def _memory_row(row: Row, named: Sequence[str]) -> list[str]:
    memory, peak = row["memory"], row["peak_bytes"]
    total = memory["total"]
    ratio = f"{total / peak:.2f}" if peak else "-"
    return [
        row["size"],
        row["shape"],
        row["setting"],
        *(_gb(memory[name]) for name in named),
        _gb(total),
        _gb(peak),
        ratio,
    ]


def _output(name: str, part: Row) -> str:
    return "\n".join([f"{name}, the end of what it said:", "```", *part["output"], "```"])


def _gb(number: float | None) -> str:
    return "-" if number is None else f"{number / GB:.2f} GB"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"

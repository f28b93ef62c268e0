"""Runs the parts of the GPU check one after another, each in a process of its own that is killed at its limit.

    launch/benchmarks/gpu_check.sh [--out FOLDER] [--minutes 8] [--device cuda|cpu] [--small]

A part that fails or hangs is named and the next one runs. Results are written after every part, so that a check that is
cut off leaves what it had. `--small --device cpu` runs all of it in miniature. This file imports Python's own library
alone: whatever is broken on the machine, it can still say so.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_table import as_markdown

PARTS_FILE = Path(__file__).with_name("gpu_parts.py")
LEAST_S = 3.0
"""A part is not begun when less is left."""


@dataclass(frozen=True)
class Part:
    """A part by the name that gpu_parts.py knows it by, and the seconds that it may take."""

    name: str
    limit_s: float


PARTS = (
    Part("device", 30),
    Part("tests", 140),
    Part("update 0.5b", 100),
    Part("update 1.5b", 110),
    Part("flex", 45),
    Part("export", 45),
)
"""In order of worth. Most end well before their limits, which together are the whole time."""


def run_part(part: Part, limit_s: float, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """What became of a part, and the rows that it wrote until then."""
    rows = scratch / f"{part.name.replace(' ', '_')}.jsonl"
    log = rows.with_suffix(".log")
    command = [sys.executable, str(PARTS_FILE), part.name, "--rows", str(rows), "--device", options.device]
    command += ["--scratch", str(scratch)] + ["--small"] * options.small
    began = time.monotonic()
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = child.wait(limit_s)
            state = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            state = f"cut off after {limit_s:.0f} s"
        finally:
            _kill(child)
    found = {"state": state, "seconds": round(time.monotonic() - began, 1), "rows": list(_read(rows))}
    return found if state == "done" else found | {"output": _tail(log)}


def _kill(child: subprocess.Popen[bytes]) -> None:
    """The part and all that it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()


def _read(file: Path) -> Iterator[dict[str, Any]]:
    """Whole rows; the last one may have been cut off."""
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    yield from map(json.loads, lines)


def _tail(log: Path, num_lines: int = 25) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-num_lines:]


def write(results: dict[str, Any], folder: Path) -> None:
    """Both files, each replaced as a whole."""
    texts = {"gpu_check.json": json.dumps(results, indent=2) + "\n", "gpu_check.md": as_markdown(results)}
    for name, text in texts.items():
        temporary = folder / f".{name}"
        temporary.write_text(text)
        temporary.replace(folder / name)


def check(options: argparse.Namespace) -> dict[str, Any]:
    """All parts, as far as the time goes."""
    deadline = time.monotonic() + 60 * options.minutes
    results: dict[str, Any] = {"small": options.small, "device": options.device, "parts": {}}
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as scratch:
        for part in _chosen(options.parts):
            limit_s = min(part.limit_s, deadline - time.monotonic())
            if limit_s < LEAST_S:
                results["parts"][part.name] = {"state": "not begun: no time left", "seconds": 0.0, "rows": []}
            else:
                print(f"{part.name} ...", flush=True)
                results["parts"][part.name] = run_part(part, limit_s, options, Path(scratch))
                found = results["parts"][part.name]
                print(f"{part.name}: {found['state']}, {found['seconds']:.0f} s", flush=True)
            write(results, options.out)
    return results


def _chosen(names: Sequence[str] | None) -> list[Part]:
    return [part for part in PARTS if not names or part.name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--parts", nargs="*", choices=[part.name for part in PARTS])
    options = parser.parse_args()
    results = check(options)
    print(as_markdown(results))
    sys.exit(any(part["state"] != "done" for part in results["parts"].values()))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()

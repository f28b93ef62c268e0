"""Picks a few completions out of files of any size, and cuts their text into pieces that a page can show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grpo.evaluation.changes import SourceChange
from grpo.row_values import Row, number
from grpo.rows import read_rows, steps_in

_NUM_STEPS = 5
_MAX_PIECES = 40
_MAX_CHARACTERS = 4000
_TAG = re.compile(r"(</?(?:think|answer)>)")


@dataclass(slots=True)
class StepPick:
    """Of one step: how many completions there are, the best, the worst and one of each outcome."""

    step: int
    num_rows: int = 0
    best: Row | None = None
    worst: Row | None = None
    by_outcome: dict[str, Row] = field(default_factory=dict)

    def see(self, row: Row) -> None:
        """Count one more completion of the step, and keep it where it is better or worse than all before it."""
        self.num_rows += 1
        self.by_outcome.setdefault(str(row.get("outcome")), row)
        reward = number(row, "reward")
        if reward is None:
            return
        self.best = row if self.best is None or reward > self.best["reward"] else self.best
        self.worst = row if self.worst is None or reward < self.worst["reward"] else self.worst

    def chosen(self) -> list[tuple[str, Row]]:
        """Best, worst, and one completion with yet another outcome, each at most once."""
        shown = {str(row.get("outcome")) for row in (self.best, self.worst) if row is not None}
        others = [("another outcome", row) for name, row in self.by_outcome.items() if name not in shown]
        kept: list[tuple[str, Row]] = []
        for label, row in (("best", self.best), ("worst", self.worst), *others):
            if row is not None and all(row is not other for _, other in kept):
                kept.append((label, row))
        return kept[:3]


@dataclass(frozen=True, slots=True)
class Flip:
    """A problem of a source that became right or wrong: a completion of the first evaluation and one of the last."""

    source: str
    title: str
    sides: tuple[tuple[str, Row], ...]


def spread(steps: Sequence[int], count: int = _NUM_STEPS) -> list[int]:
    """At most `count` of `steps`, evenly spaced, with the first and the last among them."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def pick(file: Path) -> list[StepPick]:
    """The completions to show, of steps spread over the run. The file is read twice, never held in memory."""
    picks = {step: StepPick(step) for step in spread(steps_in(file))}
    for row in read_rows(file, picks):
        picks[row["step"]].see(row)
    return [found for found in picks.values() if found.num_rows]


def flips(file: Path, sources: Sequence[SourceChange]) -> list[Flip]:
    """For each source one problem that became right and one that became wrong, where there are any."""
    asked = {
        (change.source, ids[0]): became_right
        for change in sources
        if change.paired
        for became_right, ids in ((True, change.paired.gained), (False, change.paired.lost))
        if ids
    }
    steps = {point.step for change in sources if change.paired for point in (change.accuracy[0], change.accuracy[-1])}
    found: dict[tuple[str, str], dict[int, list[Row]]] = {key: {} for key in asked}
    for row in read_rows(file, steps):
        key = str(row.get("source")), str(row.get("problem_id"))
        if key in found:
            found[key].setdefault(row["step"], []).append(row)
    return [_flip(key[0], became_right, found[key]) for key, became_right in asked.items()]


def _flip(source: str, became_right: bool, rows: Mapping[int, Sequence[Row]]) -> Flip:
    """Of several completions of the problem, those that show the change: wrong and then right, or the reverse."""
    first, last = min(rows), max(rows)
    before = min(rows[first], key=lambda row: (row.get("outcome") == "correct") == became_right)
    after = min(rows[last], key=lambda row: (row.get("outcome") == "correct") != became_right)
    title = "One that became right" if became_right else "One that became wrong"
    return Flip(source, title, ((f"step {first:,}", before), (f"step {last:,}", after)))


def pieces(text: str, opens_think: bool) -> list[tuple[str, str]]:
    """The text in order as pieces of a kind (given, tag, think, answer, plain, cut), long ones without their middle.

    `opens_think` says that the prompt ended with `<think>`, which the text then does not repeat: it comes first, as
    "given". What is beyond a number of pieces is left out, and a last piece, "cut", says so.
    """
    found = [("given", "<think>")] if opens_think else []
    kind = "think" if opens_think else "plain"
    for piece in _TAG.split(text):
        if _TAG.fullmatch(piece):
            kind = "plain" if piece.startswith("</") else piece.strip("<>")
            found.append(("tag", piece))
        elif piece.strip():
            found.append((kind, cut(piece.strip("\n"))))
    if len(found) <= _MAX_PIECES:
        return found
    return [*found[:_MAX_PIECES], ("cut", f"… {len(found) - _MAX_PIECES} more pieces left out …")]


def cut(text: object, limit: int = _MAX_CHARACTERS) -> str:
    """The text, with the middle left out where it is longer than `limit` characters."""
    text = str(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"

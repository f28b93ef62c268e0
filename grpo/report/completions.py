"""Pick a few completions out of files of any size, and write them legibly and safely as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from grpo.report.panels import GREY, OUTCOME_COLOURS
from grpo.report.read import Row, number, rows_by_line, steps_in
from grpo.report.scale import shown

_NUM_STEPS = 5
_MAX_PIECES = 40
_MAX_CHARACTERS = 4000
_MAX_REASON = 200

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
        """Take notice of one more completion of the step; of equals the first one stays."""
        self.num_rows += 1
        self.by_outcome.setdefault(str(row.get("outcome")), row)
        reward = number(row, "reward")
        if reward is None:
            return
        self.best = row if self.best is None or reward > _reward(self.best) else self.best
        self.worst = row if self.worst is None or reward < _reward(self.worst) else self.worst

    def chosen(self) -> list[tuple[str, Row]]:
        """Best, worst, and one completion with yet another outcome, each at most once."""
        named = [("best", self.best), ("worst", self.worst)]
        named += [("another outcome", row) for name, row in self.by_outcome.items() if name not in self._outcomes()]
        kept: list[tuple[str, Row]] = []
        for label, row in named:
            if row is not None and all(row is not other for _, other in kept):
                kept.append((label, row))
        return kept[:3]

    def _outcomes(self) -> set[str]:
        return {str(row.get("outcome")) for row in (self.best, self.worst) if row is not None}


@dataclass(frozen=True, slots=True)
class Flips:
    """One source's problems at the first and the last evaluation: which became right, which wrong."""

    source: str
    steps: tuple[int, int]
    gained: Sequence[tuple[Row, Row]]
    lost: Sequence[tuple[Row, Row]]
    num_right: int
    num_wrong: int


def spread(steps: Sequence[int], count: int = _NUM_STEPS) -> list[int]:
    """At most `count` of `steps`, evenly spaced, with the first and the last among them."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def pick(path: Path) -> list[StepPick]:
    """The completions to show, of steps spread over the run, in two passes over the file."""
    picks = {step: StepPick(step) for step in spread(steps_in(path))}
    for row in rows_by_line(path, frozenset(picks)):
        picks[row["step"]].see(row)
    return [found for found in picks.values() if found.num_rows]


def flips(path: Path) -> list[Flips]:
    """Compare the first completion of each held-out problem at the first and the last evaluation."""
    steps = steps_in(path)
    if len(steps) < 2:
        return []
    first, last = steps[0], steps[-1]
    rows: dict[int, dict[tuple[str, str], Row]] = {first: {}, last: {}}
    for row in rows_by_line(path, frozenset((first, last))):
        if not row.get("index"):
            rows[row["step"]][str(row.get("source")), str(row.get("problem_id"))] = row
    pairs = [
        (source, rows[first][source, name], row)
        for (source, name), row in rows[last].items()
        if (source, name) in rows[first]
    ]
    sources = dict.fromkeys(source for source, _, _ in pairs)
    return [_flips(source, (first, last), [(a, b) for name, a, b in pairs if name == source]) for source in sources]


def step_html(found: StepPick, is_open: bool) -> str:
    """The picked completions of one step, behind a heading that opens and closes them."""
    cards = "".join(card(row, label) for label, row in found.chosen())
    return (
        f'<details class="step"{" open" if is_open else ""}><summary>Step {found.step:,}'
        f" <small>{found.num_rows:,} completions</small></summary>"
        f'<div class="completions">{cards}</div></details>'
    )


def flips_html(found: Flips) -> str:
    """How many problems changed sides, with one example of each direction."""
    first, last = found.steps
    counts = (
        f"From step {first:,} to step {last:,}: <b>{len(found.gained):,}</b> became right, "
        f"<b>{len(found.lost):,}</b> became wrong, "
        f"{found.num_right:,} stayed right, {found.num_wrong:,} stayed wrong."
    )
    sides = (("became right", found.gained), ("became wrong", found.lost))
    cards = "".join(_example(f"One that {label}", pairs[0], found.steps) for label, pairs in sides if pairs)
    return (
        f'<details class="step" open><summary>{escape(found.source)} '
        f"<small>first completion of each problem</small></summary><p>{counts}</p>{cards}</details>"
    )


def _example(title: str, pair: tuple[Row, Row], steps: tuple[int, int]) -> str:
    cards = "".join(card(row, f"step {step:,}") for row, step in zip(pair, steps, strict=True))
    return f'<h4>{title}</h4><div class="completions">{cards}</div>'


def card(row: Row, label: str) -> str:
    """One completion: what was asked and expected, what was written, and what it earned."""
    outcome = str(row.get("outcome"))
    facts = [f"{row.get('num_tokens')} tokens", f"finish: {row.get('finish')}"]
    advantage = number(row, "advantage")
    facts += [f"advantage {shown(advantage)}"] if advantage is not None else []
    return (
        f'<article class="card completion"><header><b>{escape(label)}</b>'
        f'<span class="chip c{OUTCOME_COLOURS.get(outcome, GREY)}">{escape(outcome.replace("_", " "))}</span>'
        f"{_reason(row)}<span>{_rewards(row)}</span></header>"
        f'<dl class="asked"><dt>question</dt><dd tabindex="0">'
        f"{escape(cut(str(row.get('question', ''))))}</dd>"
        f"<dt>gold</dt><dd>{escape(cut(str(row.get('gold', ''))))}</dd>"
        f"<dt>answer</dt><dd>{_answer(row)}</dd></dl>"
        '<div class="text" tabindex="0" role="region" aria-label="completion">'
        f"{text_html(str(row.get('text', '')), bool(row.get('opens_think')))}</div>"
        f"<footer>{escape(' · '.join(facts))}</footer></article>"
    )


def text_html(text: str, opens_think: bool) -> str:
    """The text with thoughts and answers set apart, and the tags as they were written.

    `opens_think` says that the prompt ended with `<think>`, which the text then does not repeat.
    """
    pieces = list(_pieces(text, "think" if opens_think else "plain"))
    opening = '<span class="tag given" title="written by the prompt">&lt;think&gt;</span>' if opens_think else ""
    rest = (
        f'<span class="cut">… {len(pieces) - _MAX_PIECES} more pieces left out …</span>'
        if len(pieces) > _MAX_PIECES
        else ""
    )
    return (
        opening
        + "".join(f'<span class="{kind}">{escape(cut(piece))}</span>' for kind, piece in pieces[:_MAX_PIECES])
        + rest
    )


def cut(text: str, limit: int = _MAX_CHARACTERS) -> str:
    """The text, with the middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


def _pieces(text: str, kind: str) -> Iterator[tuple[str, str]]:
    for piece in _TAG.split(text):
        if _TAG.fullmatch(piece):
            kind = "plain" if piece.startswith("</") else piece.strip("<>")
            yield "tag", piece
        elif piece.strip():
            yield kind, piece.strip("\n")


def _reason(row: Row) -> str:
    """Why there is no answer or no verdict, or what was wrong with it, where the verifier said so."""
    reason = row.get("reason")
    return f"<span>{escape(cut(str(reason), _MAX_REASON))}</span>" if reason else ""


def _rewards(row: Row) -> str:
    parts = row.get("parts")
    named = [("reward", row), *((name, parts) for name in parts)] if isinstance(parts, Mapping) else [("reward", row)]
    return " ".join(f"{escape(str(name))}&nbsp;<b>{_value(values, name)}</b>" for name, values in named)


def _value(values: Row, name: str) -> str:
    value = number(values, name)
    return "none" if value is None else shown(value)


def _answer(row: Row) -> str:
    answer = row.get("answer")
    return "<em>none</em>" if answer is None else escape(cut(str(answer)))


def _reward(row: Row) -> float:
    value = number(row, "reward")
    return 0.0 if value is None else value


def _flips(source: str, steps: tuple[int, int], pairs: Sequence[tuple[Row, Row]]) -> Flips:
    sides = [(a.get("outcome") == "correct", b.get("outcome") == "correct") for a, b in pairs]
    return Flips(
        source=source,
        steps=steps,
        gained=[pair for pair, side in zip(pairs, sides, strict=True) if side == (False, True)],
        lost=[pair for pair, side in zip(pairs, sides, strict=True) if side == (True, False)],
        num_right=sides.count((True, True)),
        num_wrong=sides.count((False, False)),
    )

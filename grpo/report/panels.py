"""Which curves a report shows, in which order and colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grpo.evaluation.changes import SourceChange
from grpo.report.charts import Chart
from grpo.report.colours import BLUE, CYAN, GREEN, GREY, OCHRE, ORANGE, PURPLE, ROSE
from grpo.report.curves import Curve, curve
from grpo.row_values import Row, number, part_names

Named = tuple[str, str, str]
"""A metric, its name in the chart, and its colour."""

OUTCOME_COLOURS = {
    "correct": GREEN,
    "wrong": ORANGE,
    "no_answer": GREY,
    "malformed": PURPLE,
    "gold_unusable": OCHRE,
    "timed_out": CYAN,
    "crashed": ROSE,
}
_OTHERS = (ORANGE, GREEN, PURPLE, ROSE, CYAN, OCHRE)
"""Taken in turn by reward parts and held-out sources; blue is for the reward as a whole and for training."""

_OUTCOMES = [(f"outcome/{name}_frac", name.replace("_", " "), colour) for name, colour in OUTCOME_COLOURS.items()]
_PHASES = [
    ("time/generate_s", "generate", BLUE),
    ("time/score_s", "score", OCHRE),
    ("time/update_s", "update", GREEN),
    ("time/sync_s", "sync", ORANGE),
    ("time/eval_s", "evaluate", PURPLE),
    ("time/checkpoint_s", "checkpoint", CYAN),
]
_LENGTHS = [("completion/length_tokens", "mean", BLUE), ("completion/length_max_tokens", "longest", GREY)]
_ENTROPY = [("update/entropy_nats", "entropy", PURPLE)]
_SHARES = [
    ("group/dead_frac", "groups that teach nothing", ORANGE),
    ("completion/truncated_frac", "completions cut off", PURPLE),
    ("update/clip_frac", "tokens clipped", BLUE),
]
_GAPS = [("gap/mean_nats", "mean", BLUE), ("gap/kl_nats", "KL", ORANGE), ("sync/gap_nats", "after sync", GREEN)]
_TAIL_GAPS = [("gap/over_0p1_frac", "over 0.1", CYAN), ("gap/over_1_frac", "over 1", ROSE)]
_RATE = ("update/lr", "rate", CYAN)
_SPEED = [("speed/tokens_per_s", "all tokens", GREEN)]


def sections(rows: Sequence[Row], sources: Sequence[SourceChange]) -> list[tuple[str, list[Chart]]]:
    """The charts by section; charts and sections without values are left out."""
    training = [row for row in rows if row["step"] > 0]
    parts = [(name, _OTHERS[i % len(_OTHERS)]) for i, name in enumerate(part_names(training))]
    rewards = [("reward/mean", "reward", BLUE), *((f"reward/{name}", name, colour) for name, colour in parts)]
    drives = [(f"advantage/{name}_frac", name, colour) for name, colour in parts] if len(parts) > 1 else []

    def lines(*named: Named) -> list[Curve]:
        found = (curve(training, key, name, colour) for key, name, colour in named)
        return [line for line in found if line is not None]

    accuracies = [*_held_out(sources), *lines(("outcome/correct_frac", "training", BLUE))]
    found = {
        "Learning": [
            Chart("Reward", "mean per completion", lines(*rewards)),
            Chart("Correct answers", "share, 95% interval", accuracies, percent=True),
            Chart("Outcomes", "share of completions", _layers(training, _OUTCOMES), percent=True, stacked=True),
            Chart(
                "What drives the update",
                "share of the advantages",
                _layers(training, drives),
                percent=True,
                stacked=True,
            ),
        ],
        "Writing": [
            Chart("Completion length", "tokens", lines(*_LENGTHS)),
            Chart("Entropy", "nats per token", lines(*_ENTROPY)),
            Chart("Shares to watch", "share", lines(*_SHARES), percent=True),
        ],
        "Stability": [
            Chart("Gap between engine and trainer", "nats per token", lines(*_GAPS), may_log=True),
            Chart("Tokens with a large gap", "share of tokens", lines(*_TAIL_GAPS), percent=True),
            Chart("Gradient norm", "norm", lines(("update/grad_norm", "norm", ORANGE)), may_log=True),
            Chart("KL to the reference", "nats per token", lines(("update/kl_nats", "KL", ROSE))),
            Chart("Learning rate", "per update", [replace(rate, is_exact=True) for rate in lines(_RATE)]),
        ],
        "Time": [
            Chart("Time per step", "seconds", _with_rest(training, _layers(training, _PHASES)), stacked=True),
            Chart("Speed", "tokens per second", lines(*_SPEED)),
        ],
    }
    kept = [(name, [chart for chart in charts if chart.curves]) for name, charts in found.items()]
    return [(name, charts) for name, charts in kept if charts]


def _held_out(sources: Sequence[SourceChange]) -> list[Curve]:
    """The accuracy of each source at every evaluation, with its interval."""
    return [
        Curve(
            name=f"held out: {source.source}",
            colour=_OTHERS[i % len(_OTHERS)],
            steps=tuple(point.step for point in source.accuracy),
            values=tuple(point.value for point in source.accuracy),
            intervals=tuple(point.interval for point in source.accuracy),
        )
        for i, source in enumerate(sources)
        if source.accuracy
    ]


def _layers(rows: Sequence[Row], named: Sequence[Named]) -> list[Curve]:
    """Layers to stack: a value at each step, 0 where a row has none. Layers that are 0 throughout are left out."""
    steps = tuple(row["step"] for row in rows)
    all_values = ((name, colour, tuple(number(row, key) or 0.0 for row in rows)) for key, name, colour in named)
    return [Curve(name, colour, steps, values) for name, colour, values in all_values if any(values)]


def _with_rest(rows: Sequence[Row], layers: list[Curve]) -> list[Curve]:
    """The layers of the phases, and as one more the rest of each step's time where it is over 2 % in all."""
    whole = [number(row, "time/step_s") or 0.0 for row in rows]
    named = [sum(curve.values[i] for curve in layers) for i in range(len(rows))]
    rest = tuple(max(0.0, all_s - named_s) for all_s, named_s in zip(whole, named, strict=True))
    if sum(rest) <= 0.02 * sum(whole):
        return layers
    return [*layers, Curve("other", GREY, tuple(row["step"] for row in rows), rest)]

"""Which curves a report shows, in which order and colours."""

from __future__ import annotations

from collections.abc import Sequence

from grpo.report.charts import Chart
from grpo.report.curves import Curve, curve
from grpo.report.evaluations import SourceChange
from grpo.report.read import Row, number

BLUE, ORANGE, GREEN, PURPLE, ROSE, CYAN, OCHRE, GREY = range(8)

Named = tuple[str, str, int]

OUTCOME_COLOURS = {
    "correct": GREEN,
    "wrong": ORANGE,
    "no_answer": GREY,
    "malformed": PURPLE,
    "gold_unusable": OCHRE,
    "timed_out": CYAN,
    "crashed": ROSE,
}
_PHASES: tuple[Named, ...] = (
    ("generate", "generate", BLUE),
    ("score", "score", OCHRE),
    ("update", "update", GREEN),
    ("sync", "sync", ORANGE),
    ("eval", "evaluate", PURPLE),
    ("checkpoint", "checkpoint", CYAN),
)
_LENGTHS: tuple[Named, ...] = (
    ("completion/length_tokens", "mean", BLUE),
    ("completion/length_max_tokens", "longest", GREY),
)
_SHARES: tuple[Named, ...] = (
    ("group/dead_frac", "groups that teach nothing", ORANGE),
    ("completion/truncated_frac", "completions cut off", PURPLE),
    ("update/clip_frac", "tokens clipped", BLUE),
)
_GAPS: tuple[Named, ...] = (
    ("gap/mean_nats", "mean", BLUE),
    ("gap/kl_nats", "KL", ORANGE),
    ("sync/gap_nats", "after sync", GREEN),
)
_TAIL_GAPS: tuple[Named, ...] = (("gap/over_0p1_frac", "over 0.1", CYAN), ("gap/over_1_frac", "over 1", ROSE))


def sections(rows: Sequence[Row], sources: Sequence[SourceChange]) -> list[tuple[str, list[Chart]]]:
    """The charts by section; charts and sections without values are left out."""
    training = [row for row in rows if row["step"] > 0]
    found = [
        ("Learning", [_rewards(training), _correct(training, sources), _outcomes(training), _pulls(training)]),
        (
            "Writing",
            [
                _chart("Completion length", "tokens", _curves(training, _LENGTHS)),
                _chart("Entropy", "nats per token", _one(training, "update/entropy_nats", "entropy", PURPLE)),
                _chart("Shares to watch", "share", _curves(training, _SHARES), percent=True),
            ],
        ),
        (
            "Stability",
            [
                _chart("Gap between engine and trainer", "nats per token", _curves(training, _GAPS), may_log=True),
                _chart("Tokens with a large gap", "share of tokens", _curves(training, _TAIL_GAPS), percent=True),
                _chart("Gradient norm", "norm", _one(training, "update/grad_norm", "norm", ORANGE), may_log=True),
                _chart("KL to the reference", "nats per token", _one(training, "update/kl_nats", "KL", ROSE)),
                _chart("Learning rate", "per update", _rate(training)),
            ],
        ),
        (
            "Time",
            [
                _phases(training),
                _chart("Speed", "tokens per second", _one(training, "speed/tokens_per_s", "all tokens", GREEN)),
            ],
        ),
    ]
    kept = [(name, [chart for chart in charts if chart is not None]) for name, charts in found]
    return [(name, charts) for name, charts in kept if charts]


def part_names(rows: Sequence[Row]) -> list[str]:
    """The names of the reward parts, in the order of their first appearance."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith("reward/"))
    return [key.removeprefix("reward/") for key in keys if key not in ("reward/mean", "reward/std")]


def _chart(
    title: str,
    unit: str,
    curves: Sequence[Curve],
    *,
    percent: bool = False,
    may_log: bool = False,
    stacked: bool = False,
) -> Chart | None:
    return Chart(title, unit, tuple(curves), percent, may_log, stacked) if curves else None


def _curves(rows: Sequence[Row], named: Sequence[Named]) -> list[Curve]:
    found = (curve(rows, key, name, colour) for key, name, colour in named)
    return [line for line in found if line is not None]


def _one(rows: Sequence[Row], key: str, name: str, colour: int) -> list[Curve]:
    return _curves(rows, [(key, name, colour)])


def _rate(rows: Sequence[Row]) -> list[Curve]:
    rate = curve(rows, "update/lr", "rate", CYAN, may_smooth=False)
    return [] if rate is None else [rate]


def _rewards(rows: Sequence[Row]) -> Chart | None:
    parts = [(f"reward/{name}", name, colour) for name, colour in _part_colours(rows)]
    return _chart("Reward", "mean per completion", _curves(rows, [("reward/mean", "reward", BLUE), *parts]))


def _pulls(rows: Sequence[Row]) -> Chart | None:
    """Which reward drives the model; nothing where there is only one to do it."""
    parts = _part_colours(rows)
    named = [(f"advantage/{name}_frac", name, colour) for name, colour in parts] if len(parts) > 1 else []
    return _chart("What drives the update", "share of the advantages", _layers(rows, named), percent=True, stacked=True)


def _part_colours(rows: Sequence[Row]) -> list[tuple[str, int]]:
    return [(name, ORANGE + i % GREY) for i, name in enumerate(part_names(rows))]


def _correct(rows: Sequence[Row], sources: Sequence[SourceChange]) -> Chart | None:
    training = _one(rows, "outcome/correct_frac", "training", BLUE)
    held_out = [_accuracy(source, ORANGE + i % GREY) for i, source in enumerate(sources) if source.accuracy]
    return _chart("Correct answers", "share, 95% interval", [*held_out, *training], percent=True)


def _accuracy(source: SourceChange, colour: int) -> Curve:
    return Curve(
        name=f"held out: {source.source}",
        colour=colour,
        steps=tuple(point.step for point in source.accuracy),
        values=tuple(point.value for point in source.accuracy),
        bounds=tuple(
            None if point.low is None or point.high is None else (point.low, point.high) for point in source.accuracy
        ),
    )


def _outcomes(rows: Sequence[Row]) -> Chart | None:
    named = [(f"outcome/{name}_frac", name.replace("_", " "), colour) for name, colour in OUTCOME_COLOURS.items()]
    return _chart("Outcomes", "share of completions", _layers(rows, named), percent=True, stacked=True)


def _phases(rows: Sequence[Row]) -> Chart | None:
    layers = _layers(rows, [(f"time/{phase}_s", name, colour) for phase, name, colour in _PHASES])
    rest = _rest(rows, layers)
    return _chart("Time per step", "seconds", [*layers, *rest], stacked=True)


def _layers(rows: Sequence[Row], named: Sequence[Named]) -> list[Curve]:
    """Curves on all steps, nothing counted as zero; those that are zero throughout are left out."""
    steps = tuple(row["step"] for row in rows)
    all_values = ((name, colour, tuple(number(row, key) or 0.0 for row in rows)) for key, name, colour in named)
    return [Curve(name, colour, steps, values) for name, colour, values in all_values if any(values)]


def _rest(rows: Sequence[Row], layers: Sequence[Curve]) -> list[Curve]:
    """What the named phases leave of the time of a step, where that is more than a fiftieth."""
    whole = [number(row, "time/step_s") or 0.0 for row in rows]
    named = [sum(curve.values[i] for curve in layers) for i in range(len(rows))]
    rest = tuple(max(0.0, all_s - named_s) for all_s, named_s in zip(whole, named, strict=True))
    if sum(rest) <= 0.02 * sum(whole):
        return []
    return [Curve("other", GREY, tuple(row["step"] for row in rows), rest)]

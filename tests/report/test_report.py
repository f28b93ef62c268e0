"""What a report says about a made-up run, and what it survives."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import random
import re
import time
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.models import ColumnDataSource, HoverTool, LinearAxis, LogAxis, Whisker
from bokeh.plotting import figure
from fake_run import HOSTILE, metric_rows, write_rows, write_run

from grpo.evaluation.changes import SourceChange, source_changes
from grpo.evaluation.estimates import Interval, PairedChange
from grpo.report import ReportError, write_report
from grpo.report.charts import Chart, plots, readings, value_range
from grpo.report.completions import StepPick, cut, flips, pick, pieces, spread
from grpo.report.curves import Curve, buckets, curve, extremes, moving_average
from grpo.report.headline import Ends, ends, verdict
from grpo.report.panels import sections
from grpo.report.read import read_run

Values = dict[str, list[float]]


class Page(HTMLParser):
    """The elements of a page, and whether they are closed in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def report(folder: Path) -> str:
    return write_report(folder).read_text()


def scripts(html: str) -> dict[str, str]:
    """The page's scripts by their type; what runs at once has none."""
    found = re.findall(r"<script(?: type=\"([^\"]+)\")?[^>]*>(.*?)</script>", html, re.DOTALL)
    return dict(found)


def embedded(html: str) -> list[figure]:
    """The plots of a page in their order, as the library reads them back."""
    content = json.loads(scripts(html)["application/json"])
    roots = {plot.id: plot for plot in Document.from_json(content["document"]).roots}
    return [roots[name] for name in content["roots"]]


def source_values(source: ColumnDataSource) -> Values:
    return {name: np.asarray(column).tolist() for name, column in source.data.items()}


def lines_of(plot: figure) -> dict[str, Values]:
    """What is drawn under each curve's name."""
    return {one.name: source_values(one.data_source) for one in plot.renderers if one.name}


def rewrite(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    write_rows(folder / "metrics.jsonl", rows)
    return folder


def completion(**changes: Any) -> dict[str, Any]:
    row = {
        "step": 1,
        "problem_id": "p",
        "index": 0,
        "question": "q",
        "gold": "4",
        "text": "t",
        "finish": "stop",
    }
    return row | {"num_tokens": 5, "reward": 0.0, "parts": {}, "outcome": "wrong", "answer": None} | changes


def test_the_page_is_whole_and_self_contained(run_dir: Path) -> None:
    html = report(run_dir)
    page = Page(html)
    assert not [attrs for _, attrs in page.elements if "src" in attrs or "href" in attrs]
    assert "url(" not in html
    assert "@import" not in html
    assert re.findall(r"https?://", html) == []
    assert html.lstrip().startswith("<!doctype html>")
    assert [path.name for path in run_dir.glob("report*")] == ["report.html"]


def test_every_chart_says_what_it_shows(run_dir: Path) -> None:
    page = Page(report(run_dir))
    charts = [attrs for _, attrs in page.elements if attrs.get("role") == "img"]
    assert len(charts) == len(embedded(report(run_dir))) == 14
    assert all("by step, first to last" in str(attrs["aria-label"]) for attrs in charts)


def test_key_facts(run_dir: Path) -> None:
    html = report(run_dir)
    for fact in ("Qwen/Qwen3-0.6B", "vllm 0.32.0", "ab55db4c0ffe", "NVIDIA H100 80GB HBM3", "countdown-demo"):
        assert f">{fact}<" in html
    assert "clip_high: 0.28" in html


def text_of(html: str) -> str:
    """What a reader sees: no tags, and single spaces."""
    without_code = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", without_code)).split())


def evaluated(accuracies: dict[int, float], margin: float | None = 0.1) -> list[dict[str, Any]]:
    """Rows of metrics with an evaluation of source a at each step."""
    ends = {"low": -1.0, "high": 1.0} if margin else {}
    return [
        {"step": step, "eval/a/accuracy": value}
        | {f"eval/a/accuracy_{end}": value + sign * (margin or 0) for end, sign in ends.items()}
        for step, value in accuracies.items()
    ]


def judged(step: int, right: dict[str, str]) -> list[dict[str, Any]]:
    """Rows of held-out completions of source a: for each problem a letter a completion, r where it is right."""
    return [
        completion(step=step, source="a", problem_id=name, index=i, outcome="correct" if letter == "r" else "wrong")
        for name, letters in right.items()
        for i, letter in enumerate(letters)
    ]


def eighteen_up_two_down() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """100 problems of which 40 were right; 18 were gained and 2 lost: 56."""
    before = {f"p{i}": "r" if i < 40 else "w" for i in range(100)}
    after = dict(before)
    after |= {f"p{i}": "w" for i in range(2)} | {f"p{i}": "r" for i in range(40, 58)}
    return evaluated({0: 0.4, 8: 0.56}), [*judged(0, before), *judged(8, after)]


def test_before_and_after_by_hand(tmp_path: Path) -> None:
    rows, held_out = eighteen_up_two_down()
    write_rows(tmp_path / "evals.jsonl", held_out)
    seen = text_of(report(rewrite(tmp_path, [*rows, {"step": 4}])))
    # 2 (C(20,0) + C(20,1) + C(20,2)) / 2^20 = 422 / 1048576 = 0.0004; the two intervals overlap by far.
    told = "18 of 100 problems gained, 2 lost. This is more than chance (p = 0.0004, exact McNemar test)."
    assert f"Held-out accuracy on a rose by 16.0 points from step 0 to step 8. {told}" in seen
    assert f"{told} 38 were right and 42 wrong both times." in seen
    assert "accuracy 40.0% 30.0 to 50.0 56.0% 46.0 to 66.0 +16.0 points +8.0 to +24.0" in seen


def test_a_change_inside_the_noise_is_called_so() -> None:
    # 4 gained and 1 lost: 2 (1 + 5) / 32 = 0.375.
    sides = {f"g{i}": ("w", "r") for i in range(4)} | {"l": ("r", "w"), "s": ("r", "r")}
    held_out = [row for i in (0, 1) for row in judged(5 * i, {name: side[i] for name, side in sides.items()})]
    assert verdict(source_changes(evaluated({0: 2 / 6, 5: 5 / 6}), held_out), []) == (
        "Held-out accuracy on a rose by 50.0 points from step 0 to step 5. "
        "4 of 6 problems gained, 1 lost. Chance alone may have done this (p = 0.38, exact McNemar test)."
    )


def test_without_verdicts_nothing_is_said_of_chance() -> None:
    [found] = source_changes(evaluated({0: 0.5, 5: 0.25}), [])
    assert found.paired is None
    assert verdict([found], []) == "Held-out accuracy on a fell by 25.0 points from step 0 to step 5."
    [found] = source_changes(evaluated({0: 0.5}), judged(0, {"p": "r"}))
    assert found.paired is None


def test_other_problems_under_the_same_ids_are_not_compared() -> None:
    """The id of a generated problem is its number, whatever was asked under it."""
    before, after = judged(0, {"p0": "w", "p1": "w"}), judged(5, {"p0": "r", "p1": "r"})
    asked_otherwise = [before[0], before[1], {**after[0], "question": "another"}, after[1]]
    [found] = source_changes(evaluated({0: 0.0, 5: 1.0}), asked_otherwise)
    assert found.paired is None
    assert verdict([found], []) == (
        "Held-out accuracy on a rose by 100.0 points from step 0 to step 5. The evaluation was changed between step 0 "
        "and step 5 (they do not hold the same problems): the two cannot be compared."
    )
    for key in ("gold", "checker"):
        [found] = source_changes(evaluated({0: 0.0, 5: 1.0}), [*before, {**after[0], key: "9"}, after[1]])
        assert found.paired is None, key
    [found] = source_changes(evaluated({0: 0.0, 5: 1.0}), [*before, after[0]])
    assert "do not hold the same problems" in found.told


def changed(step: int, key: str, old: object, new: object, **more: object) -> dict[str, Any]:
    return {"step": step, "key": key, "old": old, "new": new, **more}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([changed(3, "eval.temperature", 0.0, 1.0)], "eval.temperature was 0.0, then 1.0"),
        ([changed(5, "eval.max_new_tokens", None, 9)], "eval.max_new_tokens was None, then 9"),
        ([changed(3, "eval.num_completions", 1, 2)], "eval.num_completions was 1, then 2"),
        ([changed(6, "eval.temperature", 0.0, 1.0)], ""),  # after the last
        ([changed(3, "eval.temperature", 0.0, 1.0), changed(4, "eval.temperature", 1.0, 0.0)], ""),  # and back
        ([changed(3, "eval.every", 5, 1), changed(3, "update.lr", 1.0, 2.0)], ""),
        ([changed(3, "eval.sources.1.path", None, "other.jsonl")], ""),  # the problems of this source are the same
    ],
)
def test_evaluations_with_other_settings_are_not_compared(changes: list[dict[str, Any]], told: str) -> None:
    held_out = [*judged(0, {"p": "w"}), *judged(5, {"p": "r"})]
    [found] = source_changes(evaluated({0: 0.0, 5: 1.0}), held_out, changes)
    assert (found.paired is None) == bool(told)
    assert (f"step 0 and step 5 ({told}): the two cannot be compared." in found.told) == bool(told)


def test_a_run_that_began_anew_with_other_settings_compares_with_itself() -> None:
    """The change holds from step 1 by its row, but step 0 was evaluated again, after it."""
    held_out = [*judged(0, {"p": "w"}), *judged(5, {"p": "r"})]
    for time_unix, is_paired in ((99.0, True), (101.0, False), (103.0, True)):
        changes = [changed(1, "eval.temperature", 0.0, 1.0, time_unix=time_unix)]
        rows = [row | {"time_unix": 100.0 + i * 2} for i, row in enumerate(evaluated({0: 0.0, 5: 1.0}))]
        [found] = source_changes(rows, held_out, changes)
        assert (found.paired is not None) == is_paired


def test_the_report_reads_what_was_changed(tmp_path: Path) -> None:
    rows, held_out = eighteen_up_two_down()
    write_rows(tmp_path / "evals.jsonl", held_out)
    write_rows(tmp_path / "recipe_changes.jsonl", [changed(3, "eval.temperature", 0.0, 1.0)])
    seen = text_of(report(rewrite(tmp_path, rows)))
    assert seen.count("(eval.temperature was 0.0, then 1.0): the two cannot be compared.") == 2
    assert "McNemar" not in seen
    assert "both times" not in seen


def test_several_completions_a_problem_are_judged_by_the_interval() -> None:
    before = {f"p{i}": "wwrr" for i in range(30)}
    after = {f"p{i}": "wrrr" if i < 20 else "wwrr" for i in range(30)}
    changes = source_changes(evaluated({0: 0.5, 9: 2 / 3}), [*judged(0, before), *judged(9, after)])
    assert verdict(changes, []).endswith(
        "20 of 30 problems gained, 0 lost. This is more than chance (the paired 95% interval excludes 0)."
    )


def test_an_unchanged_accuracy() -> None:
    rows = [*judged(0, {"p": "r", "q": "w"}), *judged(4, {"p": "r", "q": "w"})]
    assert verdict(source_changes(evaluated({0: 0.5, 4: 0.5}), rows), []) == (
        "Held-out accuracy on a is unchanged from step 0 to step 4. "
        "0 of 2 problems gained, 0 lost. Nothing shows that training changed anything here."
    )


def test_sources_keep_their_order_and_metrics_theirs() -> None:
    row = {"step": 0, "eval/b/x/pass_at_16": 0.5, "eval/b/x/pass_at_4": 0.4, "eval/b/x/accuracy": 0.3}
    found = source_changes([row | {"eval/a/accuracy": None, "eval/b/x/num_problems": 7, "eval/pause_s": 1}])
    assert [(one.source, one.num_problems) for one in found] == [("b/x", 7)]
    assert [(c.label, c.before, c.after) for c in found[0].changes] == [
        ("accuracy", None, 0.3),
        ("pass@4", None, 0.4),
        ("pass@16", None, 0.5),
    ]


def test_ends_of_a_run() -> None:
    rows = [{"step": i, "reward/mean": float(i)} for i in range(1, 21)]
    assert ends(rows, "reward/mean") == Ends(first=3.0, last=18.0, num_steps=5)
    assert ends(rows[:3], "reward/mean") == Ends(first=1.0, last=3.0, num_steps=1)
    assert ends(rows, "reward/nothing") is None


def test_a_three_point_curve_by_hand() -> None:
    chart = Chart("Reward", "mean", (Curve("r", "#2459c4", (0, 5, 10), (0.0, 1.0, 0.5)),))
    [plot] = plots([chart])
    assert lines_of(plot) == {"r": {"step": [0, 5, 10], "raw": [0.0, 1.0, 0.5], "smooth": [0.0, 1.0, 0.5]}}
    assert [one.glyph.__class__.__name__ for one in plot.renderers] == ["Line", "Scatter", "Line"]  # the last: read-out
    assert (plot.y_range.start, plot.y_range.end) == (0.0, 1.05)
    assert (plot.x_range.start, plot.x_range.end) == (-0.5, 10.5)
    assert chart.spoken == "Reward by step, first to last: r 0 to 0.500"
    assert chart.ends == [0.5]


def test_a_noisy_curve_is_drawn_twice_and_one_that_was_set_once() -> None:
    steps, values = tuple(range(16)), tuple(float(i % 2) for i in range(16))
    noisy, exact = Curve("n", "#2459c4", steps, values), Curve("n", "#2459c4", steps, values, is_exact=True)
    smooth, raw = (lines_of(plots([Chart("t", "u", (one,))])[0])["n"]["smooth"] for one in (noisy, exact))
    # A window of 4 is two values on either side: at 7 the mean of 1 0 1 0 1.
    assert smooth[7] == pytest.approx(0.6)
    assert raw == list(values)


def test_an_interval_is_drawn_as_a_whisker() -> None:
    intervals = (Interval(0.5, 0.25, 1.0), None)
    [plot] = plots([Chart("Correct", "share", (Curve("held", "#2459c4", (0, 10), (0.5, 1.0), intervals),))])
    [whisker] = [one for one in plot.center if isinstance(one, Whisker)]
    drawn = source_values(whisker.source)
    assert (drawn["step"], drawn["low"][0], drawn["high"][0]) == ([0, 10], 0.25, 1.0)
    assert math.isnan(drawn["low"][1])
    assert math.isnan(drawn["high"][1])
    assert (whisker.base, whisker.lower, whisker.upper) == ("step", "low", "high")


def test_thinned_intervals_stay_with_their_steps() -> None:
    steps = tuple(range(1500))
    values = tuple(float(step % 7) for step in steps)
    intervals = tuple(Interval(value, value - 1, value + 1) for value in values)
    [plot] = plots([Chart("Correct", "share", (Curve("held", "#2459c4", steps, values, intervals),))])
    drawn = lines_of(plot)["held"]
    assert 500 < len(drawn["step"]) <= 1000
    assert drawn["low"] == [step % 7 - 1 for step in drawn["step"]]
    assert drawn["high"] == [step % 7 + 1 for step in drawn["step"]]


def test_stacked_bars_by_hand() -> None:
    curves = (Curve("a", "#2459c4", (1, 2), (1.0, 2.0)), Curve("b", "#c0560b", (1, 2), (3.0, 2.0)))
    [plot] = plots([Chart("Time", "seconds", curves, stacked=True)])
    bars = plot.renderers[:2]
    drawn = source_values(bars[0].data_source)
    assert [drawn[name] for name in ("part 0", "part 1", "middle")] == [[1.0, 2.0], [3.0, 2.0], [1.0, 2.0]]
    assert [bar.glyph.fill_color for bar in bars] == ["#2459c4", "#c0560b"]
    assert plot.y_range.end == pytest.approx(4.2)  # the highest bar is 4
    assert [len(lower.expr.fields) for lower in (bars[0].glyph.bottom, bars[1].glyph.bottom)] == [0, 1]


def test_many_steps_share_a_bar_as_their_mean() -> None:
    curves = (Curve("a", "#2459c4", tuple(range(1, 121)), tuple(float(i % 2) for i in range(120))),)
    drawn = source_values(plots([Chart("Time", "seconds", curves, stacked=True)])[0].renderers[0].data_source)
    assert drawn["part 0"] == [0.5] * 60
    assert drawn["middle"][:2] == [1.5, 3.5]


@pytest.mark.parametrize(
    ("values", "may_log", "expected"),
    [
        ((1e-5, 1e-2), True, (1e-5 / 1.5, 1.5e-2, "log")),
        ((1e-5, 1e-2), False, (0.0, 1.05e-2, "linear")),
        ((0.0, 1e-2), True, (0.0, 1.05e-2, "linear")),
        ((0.1, 5.0), True, (0.0, 5.25, "linear")),
        ((-1.0, 1.0), False, (-1.1, 1.1, "linear")),
        ((-2.0, -1.0), False, (-2.1, 0.1, "linear")),
        ((0.0, 0.0), False, (0.0, 1.0, "linear")),
    ],
)
def test_the_vertical_axis_is_logarithmic_where_allowed_and_useful_and_else_holds_zero(
    values: tuple[float, float], may_log: bool, expected: tuple[float, float, str]
) -> None:
    chart = Chart("t", "u", (Curve("c", "#2459c4", (1, 2), values),), may_log=may_log)
    low, high, kind = value_range(chart)
    assert (low, high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert kind == expected[2]
    [plot] = plots([chart])
    assert isinstance(plot.yaxis[0], LogAxis if kind == "log" else LinearAxis)


def test_all_plots_share_their_steps() -> None:
    charts = [Chart("t", "u", (Curve("c", "#2459c4", steps, (1.0, 2.0)),)) for steps in ((1, 2), (0, 301))]
    first, second = plots(charts)
    assert first.x_range is second.x_range
    assert (first.x_range.start, first.x_range.end) == (pytest.approx(-3.01), pytest.approx(304.01))


def test_readings_are_text_by_step() -> None:
    held_out = Curve("h", "#c0560b", (0, 3), (0.5, 1.0), (Interval(0.5, 0.4, 0.6), None))
    chart = Chart("t", "u", (held_out, Curve("c", "#2459c4", (1, 3), (0.25, 0.5))), percent=True)
    assert readings(chart) == {
        "step": [0.0, 1.0, 3.0],
        "span": ["step 0", "step 1", "step 3"],
        "value 0": ["50.0% (40.0 to 60.0)", "none", "100.0%"],
        "value 1": ["none", "25.0%", "50.0%"],
    }
    many = Chart("t", "u", (Curve("c", "#2459c4", tuple(range(1, 401)), tuple(float(i) for i in range(1, 401))),))
    found = readings(many)
    assert [found[name][0] for name in ("span", "value 0")] == ["steps 1 to 2, mean", "1.50"]
    assert len(found["step"]) == 200


def test_moving_average_by_hand() -> None:
    assert moving_average([0, 3, 6, 0, 0], 3) == [1.5, 3, 3, 2, 0]


def test_thinning_keeps_the_outline() -> None:
    values = [0.0] * 1000
    values[500], values[501] = 9.0, -9.0
    kept = extremes(values, 20)
    assert {500, 501} <= set(kept)
    assert kept == sorted(kept)
    assert len(kept) <= 20
    assert [len(part) for part in buckets(7, 3)] == [3, 3, 1]


def test_null_and_nan_are_left_out_and_counted() -> None:
    rows = [{"step": 1, "k": None}, {"step": 2, "k": float("nan")}, {"step": 3, "k": 1}, {"step": 4}]
    found = curve(rows, "k", "k", "#2459c4")
    assert found == Curve("k", "#2459c4", (3,), (1.0,), num_empty=2)
    assert curve([{"step": 1, "k": None}], "k", "k", "#2459c4") is None


def test_hostile_text_does_not_run(run_dir: Path) -> None:
    hostile = completion(text=HOSTILE, question=HOSTILE, gold=HOSTILE, answer=HOSTILE, outcome=HOSTILE, reason=HOSTILE)
    hostile |= {"finish": HOSTILE, "problem_id": HOSTILE, "parts": {HOSTILE: 1.0}}
    write_rows(run_dir / "completions.jsonl", [hostile])
    write_rows(run_dir / "evals.jsonl", [hostile | {"step": s, "source": HOSTILE} for s in (0, 1)])
    (run_dir / "recipe.yaml").write_text(f"model: {{path: '{HOSTILE}'}}")
    rows = [{"step": s, f"reward/{HOSTILE}": 0.5, f"eval/{HOSTILE}/accuracy": 0.5} for s in (0, 1, 2)]
    page = Page(report(rewrite(run_dir, rows)))
    kinds = [attrs.get("type") for tag, attrs in page.elements if tag == "script"]
    assert kinds == ["application/json", "text/plain", None]
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


def test_only_the_pages_own_script_and_the_library_may_run(run_dir: Path) -> None:
    html = report(run_dir)
    own, packed = scripts(html)[""], scripts(html)["text/plain"]
    library = gzip.decompress(base64.b64decode(packed)).decode()
    assert "Bokeh" in library
    allowed = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (own, library)]
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        f"script-src 'sha256-{allowed[0]}' 'sha256-{allowed[1]}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_thoughts_and_answers_are_set_apart() -> None:
    assert pieces("a<b\n</think>\n<answer>4</answer>", opens_think=True) == [
        ("given", "<think>"),
        ("think", "a<b"),
        ("tag", "</think>"),
        ("tag", "<answer>"),
        ("answer", "4"),
        ("tag", "</answer>"),
    ]
    assert pieces("4", opens_think=False) == [("plain", "4")]
    assert pieces("<think>" * 50, opens_think=False)[-1] == ("cut", "… 10 more pieces left out …")


def test_thoughts_and_answers_are_escaped_on_the_page(tmp_path: Path) -> None:
    write_rows(tmp_path / "completions.jsonl", [completion(text="a<b</think>", opens_think=True)])
    html = report(rewrite(tmp_path, [{"step": 1}]))
    assert '<span class="think">a&lt;b</span><span class="tag">&lt;/think&gt;</span>' in html


def test_long_text_loses_its_middle() -> None:
    assert cut("a" * 6 + "b" * 6, 4) == "aa\n… 8 characters left out …\nbb"


def test_spread_over_the_run() -> None:
    assert spread(list(range(1, 101)), 5) == [1, 26, 51, 75, 100]
    assert spread([3, 9], 5) == [3, 9]


def test_best_worst_and_another_outcome() -> None:
    found = StepPick(1)
    rows = [
        completion(index=0, reward=0.2, outcome="wrong"),
        completion(index=1, reward=1.2, outcome="correct"),
        completion(index=2, reward=1.2, outcome="correct"),
        completion(index=3, reward=None, outcome="crashed"),
        completion(index=4, reward=0.0, outcome="no_answer"),
    ]
    for row in rows:
        found.see(row)
    assert [(label, row["index"]) for label, row in found.chosen()] == [
        ("best", 1),
        ("worst", 4),
        ("another outcome", 0),
    ]
    assert found.num_rows == 5


def test_a_completion_is_shown_with_all_that_was_decided(tmp_path: Path) -> None:
    row = completion(outcome="no_answer", reason="no answer block", reward=-0.5, parts={"format": 0.25, "length": None})
    write_rows(tmp_path / "completions.jsonl", [row | {"advantage": -1.5}])
    seen = text_of(report(rewrite(tmp_path, [{"step": 1}])))
    assert "best no answer no answer block reward \u22120.500 format 0.250 length none" in seen
    assert "question q gold 4 answer none t 5 tokens · finish: stop · advantage \u22121.50" in seen


def test_no_reason_leaves_no_trace(tmp_path: Path) -> None:
    write_rows(tmp_path / "completions.jsonl", [completion(reason="")])
    first = text_of(report(rewrite(tmp_path, [{"step": 1}])))
    write_rows(tmp_path / "completions.jsonl", [completion()])
    assert text_of(report(tmp_path)) == first


def test_which_reward_drives_the_update_is_drawn_where_there_are_several() -> None:
    rows = [
        {"step": 1, "reward/format": 0.5, "reward/correctness": 0.5, "advantage/correctness_frac": 1.0},
        {"step": 2, "reward/format": 0.5, "advantage/format_frac": 0.25, "advantage/correctness_frac": 0.75},
        {"step": 3, "reward/format": 0.5},
    ]
    found = {chart.title: chart for _, charts in sections(rows, []) for chart in charts}
    drives = found["What drives the update"]
    assert [(curve.name, curve.values) for curve in drives.curves] == [
        ("format", (0.0, 0.25, 0.0)),
        ("correctness", (1.0, 0.75, 0.0)),
    ]
    assert {curve.name: curve.colour for curve in drives.curves}.items() <= {
        curve.name: curve.colour for curve in found["Reward"].curves
    }.items()
    alone = [{"step": 1, "reward/format": 0.5, "advantage/format_frac": 1.0}]
    assert [chart.title for _, charts in sections(alone, []) for chart in charts] == ["Reward"]


def test_completions_of_other_steps_are_not_shown(tmp_path: Path) -> None:
    rows = [completion(step=step, text=f"step {step}") for step in range(1, 101) for _ in range(2)]
    write_rows(tmp_path / "c.jsonl", rows)
    assert [(found.step, found.num_rows) for found in pick(tmp_path / "c.jsonl")] == [
        (s, 2) for s in (1, 26, 51, 75, 100)
    ]


def test_flips_between_the_first_and_the_last_evaluation(tmp_path: Path) -> None:
    before, after = (
        {"up": "w", "down": "r", "right": "r", "none": "w"},
        {"up": "r", "down": "w", "right": "r", "none": "w"},
    )
    rows = [*judged(0, before), *judged(20, {"none": "r"}), *judged(40, after)]
    write_rows(tmp_path / "e.jsonl", rows)
    changes = source_changes(evaluated({0: 0.5, 40: 0.5}), rows)
    found = flips(tmp_path / "e.jsonl", changes)
    assert [(one.title, one.sides[1][1]["problem_id"]) for one in found] == [
        ("One that became right", "up"),
        ("One that became wrong", "down"),
    ]
    assert [label for label, _ in found[0].sides] == ["step 0", "step 40"]
    paired = paired_of(changes)
    assert (paired.num_right, paired.num_wrong) == (1, 1)


def test_of_several_completions_those_that_show_the_flip(tmp_path: Path) -> None:
    rows = [*judged(0, {"up": "rww"}), *judged(9, {"up": "wrr"})]
    write_rows(tmp_path / "e.jsonl", rows)
    [found] = flips(tmp_path / "e.jsonl", source_changes(evaluated({0: 1 / 3, 9: 2 / 3}), rows))
    assert [(row["step"], row["index"], row["outcome"]) for _, row in found.sides] == [
        (0, 1, "wrong"),
        (9, 1, "correct"),
    ]


def paired_of(changes: list[SourceChange]) -> PairedChange:
    [change] = changes
    assert change.paired is not None
    return change.paired


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"^run_dir=.*: has no metrics.jsonl; give the folder"):
        write_report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "rew')
    with pytest.raises(ReportError, match=r"holds no whole row; wait"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_torn_and_foreign_lines_are_counted(run_dir: Path) -> None:
    with (run_dir / "metrics.jsonl").open("ab") as file:
        file.write(b'[1]\n{"step": null}\n\xff\xfe\n{"step": 81, "reward/me')
    with (run_dir / "completions.jsonl").open("ab") as file:
        file.write(b'{"step": 80, "text": "cut of')
    html = report(run_dir)
    assert "4 line(s) of metrics.jsonl could not be read" in html
    assert "<dt>steps</dt><dd>80</dd>" in html


def test_rows_are_put_in_the_order_of_their_steps(tmp_path: Path) -> None:
    rows = [{"step": s, "reward/mean": s / 8} for s in (2, 4, 3, 1)]
    assert [row["step"] for row in read_run(rewrite(tmp_path, rows)).rows] == [1, 2, 3, 4]


def test_a_step_that_ran_twice_counts_once(tmp_path: Path) -> None:
    rows = [{"step": s, "reward/mean": r} for s, r in ((1, 0.0), (2, 0.9), (2, 0.5))]
    assert "0.500" in report(rewrite(tmp_path, rows))
    assert "0.900" not in report(tmp_path)


@pytest.mark.parametrize(
    "rows",
    [
        [{"step": 0, "eval/a/accuracy": 0.5}],
        [{"step": 1, "reward/mean": 0.5, "update/grad_norm": None, "time/step_s": 2.0}],
        [{"step": 1}],
        [
            {"step": 3, "reward/mean": -0.5, "gap/mean_nats": 0.0},
            {"step": 4, "reward/mean": -0.5, "gap/mean_nats": 0.0},
        ],
    ],
)
def test_runs_of_next_to_nothing(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    Page(report(rewrite(tmp_path, rows)))


def test_ten_thousand_steps_stay_small_and_quick(tmp_path: Path) -> None:
    folder = rewrite(tmp_path, list(metric_rows(10_000, random.Random(1))))
    began = time.monotonic()
    size = write_report(folder).stat().st_size
    assert size < 1_500_000
    assert time.monotonic() - began < 6


def test_the_plots_are_data_for_the_script(tmp_path: Path) -> None:
    html = report(rewrite(tmp_path, [{"step": 1, "reward/mean": 0.25}, {"step": 3, "reward/mean": 0.5}]))
    [plot] = embedded(html)
    assert lines_of(plot) == {"reward": {"step": [1, 3], "raw": [0.25, 0.5], "smooth": [0.25, 0.5]}}
    [hover] = [tool for tool in plot.toolbar.tools if isinstance(tool, HoverTool)]
    assert [tuple(row) for row in hover.tooltips] == [("", "@span"), ("reward", "@{value 0}")]
    assert source_values(hover.renderers[0].data_source)["value 0"] == ["0.250", "0.500"]


def test_every_colour_of_the_plots_has_a_twin_for_dark_screens(run_dir: Path) -> None:
    content = json.loads(scripts(report(run_dir))["application/json"])
    used = set(re.findall(r"#[0-9a-f]{6}", json.dumps(content["document"])))
    assert len(used) > 8
    assert used <= content["dark"].keys()


def test_the_report_is_written_again_over_itself(run_dir: Path) -> None:
    first = report(run_dir)
    write_run(run_dir, num_steps=5)
    second = report(run_dir)
    assert first != second
    assert "<dt>steps</dt><dd>5</dd>" in second

"""What a report says about a made-up run, and what it survives."""

from __future__ import annotations

import json
import random
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_run import HOSTILE, metric_rows, write_rows, write_run

from grpo.report import ReportError, write_report
from grpo.report.charts import Chart, figure, path
from grpo.report.completions import StepPick, card, cut, flips, pick, spread, text_html
from grpo.report.curves import Curve, buckets, curve, extremes, moving_average
from grpo.report.evaluations import Interval, source_changes
from grpo.report.headline import Ends, ends, verdict
from grpo.report.panels import sections
from grpo.report.read import read_run


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
    assert re.findall(r"https?://[^\"' <]+", html) == ["http://www.w3.org/2000/svg"]
    assert [path.name for path in run_dir.glob("report*")] == ["report.html"]


def test_every_chart_says_what_it_shows(run_dir: Path) -> None:
    page = Page(report(run_dir))
    charts = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("role") == "img"]
    assert len(charts) == 14
    assert all("by step, first to last" in str(attrs["aria-label"]) for attrs in charts)


def test_key_facts(run_dir: Path) -> None:
    html = report(run_dir)
    for fact in ("Qwen/Qwen3-0.6B", "vllm 0.32.0", "ab55db4c0ffe", "NVIDIA H100 80GB HBM3", "countdown-demo"):
        assert f">{fact}<" in html
    assert "clip_high: 0.28" in html


def test_before_and_after_by_hand(tmp_path: Path) -> None:
    before = {"eval/a/accuracy": 0.125, "eval/a/accuracy_low": 0.1, "eval/a/accuracy_high": 0.2}
    after = {"eval/a/accuracy": 0.5, "eval/a/accuracy_low": 0.4, "eval/a/accuracy_high": 0.6}
    html = report(rewrite(tmp_path, [{"step": 0, **before}, {"step": 2}, {"step": 4, **after}]))
    assert "Held-out accuracy on a rose by 37.5 points from step 0 to step 4. The 95% intervals do not" in html
    assert "<td>12.5%<small>10.0 to 20.0</small></td>" in html
    assert "<td><b>50.0%</b><small>40.0 to 60.0</small></td><td>+37.5 points</td>" in html


def test_sources_keep_their_order_and_metrics_theirs() -> None:
    row = {"step": 0, "eval/b/x/pass_at_16": 0.5, "eval/b/x/pass_at_4": 0.4, "eval/b/x/accuracy": 0.3}
    found = source_changes([row | {"eval/a/accuracy": None, "eval/b/x/num_problems": 7, "eval/pause_s": 1}])
    assert [(one.source, one.num_problems) for one in found] == [("b/x", 7)]
    assert [(c.label, c.before, c.after) for c in found[0].changes] == [
        ("accuracy", None, 0.3),
        ("pass@4", None, 0.4),
        ("pass@16", None, 0.5),
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.3, 0.5, False), (0.41, 0.5, True), (0.0, 0.09, True), (0.05, 0.3, False), (None, None, None)],
)
def test_intervals_apart(low: float | None, high: float | None, expected: bool | None) -> None:
    assert Interval(0, 0.2, 0.1, 0.4).apart_from(Interval(9, 0.4, low, high)) is expected


def test_a_change_inside_the_noise_is_called_so() -> None:
    rows = [
        {"step": i, "eval/a/accuracy": 0.3 - i / 100, "eval/a/accuracy_low": 0.2, "eval/a/accuracy_high": 0.4}
        for i in (0, 5)
    ]
    assert verdict(source_changes(rows), []) == (
        "Held-out accuracy on a fell by 5.0 points from step 0 to step 5. "
        "The 95% intervals overlap, so this may be noise."
    )


def test_ends_of_a_run() -> None:
    rows = [{"step": i, "reward/mean": float(i)} for i in range(1, 21)]
    assert ends(rows, "reward/mean") == Ends(first=3.0, last=18.0, num_steps=5)
    assert ends(rows[:3], "reward/mean") == Ends(first=1.0, last=3.0, num_steps=1)
    assert ends(rows, "reward/nothing") is None


def test_a_three_point_curve_by_hand() -> None:
    drawn = figure(Chart("Reward", "mean", (Curve("r", 0, (0, 5, 10), (0.0, 1.0, 0.5)),)))
    assert 'class="line" d="M46.0 180.0L196.0 22.0L346.0 101.0"' in drawn
    assert drawn.count("<circle") == 3
    assert "r 0 to 0.500" in drawn


def test_an_interval_is_drawn_as_a_whisker() -> None:
    drawn = figure(Chart("Correct", "share", (Curve("held", 1, (0, 10), (0.5, 1.0), ((0.0, 1.0), None)),)))
    assert 'class="whisker" d="M46.0 180.0V22.0M43.0 180.0h6M43.0 22.0h6"' in drawn


def test_stacked_bars_by_hand() -> None:
    curves = (Curve("a", 0, (1, 2), (1.0, 2.0)), Curve("b", 1, (1, 2), (3.0, 2.0)))
    drawn = figure(Chart("Time", "seconds", curves, stacked=True))
    # Both bars reach 4, the top tick; the first layer is a quarter and then half of the height of 158.
    assert 'c0" d="M46.3 180.0H195.7V140.5H46.3zM196.3 180.0H345.7V101.0H196.3z"' in drawn
    assert 'c1" d="M46.3 140.5H195.7V22.0H46.3zM196.3 101.0H345.7V22.0H196.3z"' in drawn


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
    assert path([(0, 1), (2.04, 3)]) == "M0.0 1.0L2.0 3.0"


def test_null_and_nan_are_left_out_and_counted() -> None:
    rows = [{"step": 1, "k": None}, {"step": 2, "k": float("nan")}, {"step": 3, "k": 1}, {"step": 4}]
    found = curve(rows, "k", "k", 0)
    assert found == Curve("k", 0, (3,), (1.0,), num_empty=2)
    assert curve([{"step": 1, "k": None}], "k", "k", 0) is None


def test_hostile_text_does_not_run(run_dir: Path) -> None:
    hostile = completion(text=HOSTILE, question=HOSTILE, gold=HOSTILE, answer=HOSTILE, outcome=HOSTILE, reason=HOSTILE)
    hostile |= {"finish": HOSTILE, "problem_id": HOSTILE, "parts": {HOSTILE: 1.0}}
    write_rows(run_dir / "completions.jsonl", [hostile])
    write_rows(run_dir / "evals.jsonl", [hostile | {"step": s, "source": HOSTILE} for s in (0, 1)])
    (run_dir / "recipe.yaml").write_text(f"model: {{path: '{HOSTILE}'}}")
    rows = [{"step": s, f"reward/{HOSTILE}": 0.5, f"eval/{HOSTILE}/accuracy": 0.5} for s in (0, 1, 2)]
    page = Page(report(rewrite(run_dir, rows)))
    scripts = [attrs.get("type") for tag, attrs in page.elements if tag == "script"]
    assert scripts == [*["application/json"] * (len(scripts) - 1), None]
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


def test_only_the_pages_own_script_may_run(run_dir: Path) -> None:
    assert re.search(r"script-src 'sha256-[\w+/]{43}='; base-uri 'none'", report(run_dir))


def test_thoughts_and_answers_are_set_apart() -> None:
    assert text_html("a<b\n</think>\n<answer>4</answer>", opens_think=True) == (
        '<span class="tag given" title="written by the prompt">&lt;think&gt;</span>'
        '<span class="think">a&lt;b</span><span class="tag">&lt;/think&gt;</span>'
        '<span class="tag">&lt;answer&gt;</span><span class="answer">4</span>'
        '<span class="tag">&lt;/answer&gt;</span>'
    )
    assert text_html("4", opens_think=False) == '<span class="plain">4</span>'
    assert text_html("<think>" * 50, opens_think=False).endswith("10 more pieces left out …</span>")


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


def test_the_reason_stands_beside_the_outcome() -> None:
    assert "<span>no answer block</span>" in card(completion(outcome="no_answer", reason="no answer block"), "worst")
    assert card(completion(reason=""), "worst") == card(completion(), "worst")


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
    sides = {
        "up": ("wrong", "correct"),
        "down": ("correct", "wrong"),
        "right": ("correct",) * 2,
        "none": ("wrong",) * 2,
    }
    rows = [
        completion(step=step, problem_id=name, outcome=side[i], source="a")
        for i, step in enumerate((0, 40))
        for name, side in sides.items()
    ]
    noise = [
        completion(step=20, problem_id="up", source="a"),
        completion(step=40, problem_id="up", index=1, source="a"),
    ]
    write_rows(tmp_path / "e.jsonl", rows + noise)
    (found,) = flips(tmp_path / "e.jsonl")
    assert [pair[1]["problem_id"] for pair in (*found.gained, *found.lost)] == ["up", "down"]
    assert (found.steps, found.num_right, found.num_wrong) == ((0, 40), 1, 1)


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


def test_readings_are_data_for_the_script(tmp_path: Path) -> None:
    html = report(rewrite(tmp_path, [{"step": 1, "reward/mean": 0.25}, {"step": 3, "reward/mean": 0.5}]))
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', html)[0])
    assert data == [
        {
            "name": "reward",
            "colour": 0,
            "points": [[46.0, 101.0, "step 1", "0.250"], [346.0, 22.0, "step 3", "0.500"]],
        }
    ]


def test_the_report_is_written_again_over_itself(run_dir: Path) -> None:
    first = report(run_dir)
    write_run(run_dir, num_steps=5)
    second = report(run_dir)
    assert first != second
    assert "<dt>steps</dt><dd>5</dd>" in second

"""The plain lines to the letter, and the live display on a made-up terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from grpo.evaluation.changes import source_changes
from grpo.run.screen import Display, LiveDisplay, Pace, PlainDisplay, make_display, sparkline, visible

ROW: dict[str, Any] = {
    "step": 12,
    "time_unix": 1000.0,
    "time/step_s": 7.2,
    "reward/mean": 0.62,
    "reward/std": 0.3,
    "reward/format": 0.91,
    "reward/correctness": 0.47,
    "outcome/correct_frac": 0.47,
    "completion/length_tokens": 31.4,
    "speed/tokens_per_s": 412.0,
}
COMPLETION: dict[str, Any] = {
    "question": "What is 2 + 2?",
    "gold": "4",
    "text": "[bold]hm[/bold] :smile: \x1b[31mred\x1b[0m</think>\n<answer>4</answer>",
    "reward": 1.2,
    "outcome": "correct",
    "opens_think": True,
}
BEFORE = {
    "step": 0,
    "eval/gsm8k/accuracy": 0.125,
    "eval/gsm8k/accuracy_low": 0.05,
    "eval/gsm8k/accuracy_high": 0.2,
    "eval/gsm8k/length_tokens": 80.0,
    "eval/gsm8k/pass_at_4": 0.25,
}
AFTER = {
    "step": 80,
    "eval/gsm8k/accuracy": 0.5,
    "eval/gsm8k/accuracy_low": 0.4,
    "eval/gsm8k/accuracy_high": 0.6,
    "eval/gsm8k/length_tokens": 31.0,
    "eval/gsm8k/pass_at_4": 0.75,
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    return Terminal()


def plain(*rows: dict[str, Any]) -> list[str]:
    stream = io.StringIO()
    with make_display(80, 0, stream) as display:
        for row in rows:
            display.step(row)
    return stream.getvalue().splitlines()


def test_a_plain_step_to_the_letter() -> None:
    assert plain(ROW) == [
        "steps 1 to 80",
        "step 12/80  reward  0.62 (format  0.91 correctness  0.47)  correct  0.47"
        "  length   31    412 tok/s  left 08:10",
    ]


def test_plain_lines_stay_aligned_and_missing_numbers_are_dashes() -> None:
    lines = plain({**ROW, "step": 1}, {**ROW, "step": 80, "reward/mean": None, "speed/tokens_per_s": float("nan")})
    assert lines[1].startswith("step  1/80  reward  0.62 (")
    assert lines[2].startswith("step 80/80  reward     - (")
    assert "      - tok/s" in lines[2]
    assert [len(line) for line in lines[1:]] == [len(lines[1])] * 2


def test_an_evaluation_has_its_own_line() -> None:
    assert plain(BEFORE)[1:] == ["eval  0/80  gsm8k  accuracy 12.5%  pass@4 25.0%  length (tokens) 80.0"]


def test_summary_before_and_after() -> None:
    stream = io.StringIO()
    make_display(80, 0, stream).summary(source_changes([BEFORE, ROW, AFTER]), Path("runs/a/report.html"))
    assert stream.getvalue().splitlines()[1:] == [
        "gsm8k                        before          after         change",
        "  accuracy                    12.5%          50.0%   +37.5 points",
        "    95% interval        5.0 to 20.0   40.0 to 60.0",
        "  pass@4                      25.0%          75.0%   +50.0 points",
        "  length (tokens)              80.0           31.0          \u221249.0",
        "report: runs/a/report.html",
    ]


def test_the_summary_says_what_follows_from_the_verdicts() -> None:
    # 40 problems: 5 right before, 20 after; 16 gained and 1 lost: 2 (1 + 17) / 2^17 = 0.00027.
    held_out = [
        {"step": step, "source": "gsm8k", "problem_id": str(i), "index": 0, "outcome": "correct" if right else "wrong"}
        for step, span in ((0, range(5)), (80, range(1, 21)))
        for i in range(40)
        for right in [i in span]
    ]
    stream = io.StringIO()
    make_display(80, 0, stream).summary(source_changes([BEFORE, ROW, AFTER], held_out), Path("report.html"))
    lines = stream.getvalue().splitlines()[1:]
    assert lines[2] == "    95% interval        5.0 to 20.0   40.0 to 60.0 +20.0 to +55.0"
    assert lines[5:] == [
        "  16 of 40 problems gained, 1 lost. This is more than chance (p = 0.00027, exact McNemar test).",
        "report: report.html",
    ]


def test_the_summary_says_where_nothing_can_be_compared() -> None:
    row = {"source": "gsm8k", "problem_id": "a", "index": 0}
    held_out = [row | {"step": 0, "outcome": "wrong"}, row | {"step": 80, "outcome": "correct"}]
    changed = {"step": 41, "key": "eval.temperature", "old": 0.0, "new": 1.0}
    stream = io.StringIO()
    changes = source_changes([BEFORE, ROW, AFTER], held_out, [changed])
    make_display(80, 0, stream).summary(changes, Path("report.html"))
    assert stream.getvalue().splitlines()[6] == (
        "  The evaluation was changed between step 0 and step 80 (eval.temperature was 0.0, then 1.0): the two "
        "cannot be compared."
    )


def test_where_no_problem_moved_there_is_no_interval_of_the_change() -> None:
    row = {"source": "gsm8k", "problem_id": "a", "index": 0, "outcome": "wrong"}
    held_out = [row | {"step": step} for step in (0, 80)]
    stream = io.StringIO()
    make_display(80, 0, stream).summary(source_changes([BEFORE, ROW, AFTER], held_out), Path("report.html"))
    lines = stream.getvalue().splitlines()[1:]
    assert lines[2] == "    95% interval        5.0 to 20.0   40.0 to 60.0"
    assert lines[5] == "  0 of 1 problems gained, 0 lost. Nothing shows that training changed anything here."


def test_completions_cannot_steer_a_terminal() -> None:
    stream = io.StringIO()
    make_display(80, 0, stream).completions(3, [COMPLETION])
    assert stream.getvalue().splitlines()[1:] == [
        "completion at step 3  reward 1.20  correct  gold 4",
        "  ? What is 2 + 2?",
        "  | <think>[bold]hm[/bold] :smile: \ufffd[31mred\ufffd[0m</think>",
        "  | <answer>4</answer>",
    ]


def test_text_that_the_stream_cannot_encode_does_not_stop_the_run() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    make_display(80, 0, stream).message("\u4e09 + \ud800 = x\u202e")
    assert raw.getvalue().decode("ascii").splitlines()[1] == "? + ? = x?"


def test_visible_keeps_letters_and_ideographic_spaces() -> None:
    assert visible("a\tb\u3000\u00a0é") == "a   b\u3000\u00a0é"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(1, 100.0), (2, 110.0), (3, 120.0)], "02:50"),  # 10 s a step, 17 steps
        ([(1, 100.0), (2, 1100.0)], "5:00:00"),  # 1000 s a step, 18 steps
        ([(20, 100.0)], "00:00"),
        ([], "--:--"),
    ],
)
def test_time_left(times: list[tuple[int, float]], expected: str) -> None:
    pace = Pace(total_steps=20)
    for step, time_unix in times:
        pace.see({"step": step, "time_unix": time_unix, "time/step_s": 3.0})
    assert pace.left() == expected


def test_sparkline() -> None:
    assert sparkline([0.0, 0.5, 1.0], "abc") == "abc"
    assert sparkline([0.3, 0.3], "abc") == "aa"
    assert sparkline([]) == ""


def show(display: Display) -> None:
    display.phase("generate")
    display.step({**ROW, "step": 11, "reward/mean": 0.1})
    display.completions(12, [COMPLETION])
    display.step(ROW)


def test_the_live_display_shows_the_step_and_prints_above_it(terminal: Terminal) -> None:
    with make_display(80, 10, terminal) as display:
        assert isinstance(display, LiveDisplay)
        show(display)
    shown = terminal.getvalue()
    assert "[bold]hm[/bold] :smile:" in shown
    assert "\x1b[31mred" not in shown
    last = shown[shown.rindex("reward  0.62") :]
    assert "format  0.91" in last
    assert "12/80" in last
    assert "\u2581\u2588" in last  # the reward so far: lowest, highest
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_an_interrupt_leaves_the_terminal_usable(terminal: Terminal) -> None:
    def interrupted() -> None:
        with make_display(80, 0, terminal) as display:
            display.step(ROW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h")


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_display(80, 0, Terminal()), PlainDisplay)

"""`grpo score`: files of completions, two recipes side by side, and golds against themselves."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from processes import run_grpo, start_grpo, wait_for, write_recipe
from toy import toy_recipe

from grpo.cli import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, parse
from grpo.score.output import progress, short
from grpo.score.row_scorer import submitted_ahead
from grpo.score.rows import batches, columns_needed, read_completions
from rewards.jsonl import RowWriter
from rewards.spec import RewardSpec

ROWS: list[Any] = [
    {"completion": "<think>a</think><answer>4</answer>", "gold": "4", "checker": "integer", "opens_think": False},
    {"completion": "<think>a</think><answer>5</answer>", "gold": "4", "checker": "integer"},
    {"completion": "no tags", "gold": "4", "checker": "integer"},
    {"completion": "<answer>4</answer>"},
    {"text": "so <think>b</think><answer>\\frac{1}{2}</answer>", "gold": "0.5"},
    {"text": "<think>b</think><answer>0.5</answer>", "gold": ["3", "1/2"]},
]


def write(file: Path, rows: Iterable[object]) -> str:
    """Each row as a line of JSON; bytes as they are."""
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(file)


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def boxed_recipe(folder: Path, model: Path, **sections: Any) -> str:
    """A recipe whose template asks for a box."""
    return write_recipe(folder / "recipe.yaml", toy_recipe(model, folder / "run", **sections))


# A file


def test_score_keeps_the_order_and_names_bad_rows(tmp_path: Path) -> None:
    out = tmp_path / "scored.jsonl"
    code, output = run_grpo("score", write(tmp_path / "rows.jsonl", [*ROWS, b"not json"]), "--out", str(out))
    assert code == 0, output
    rows = read(out)
    assert [row.get("outcome") for row in rows] == ["correct", "wrong", "no_answer", None, "correct", "correct", None]
    assert [row.get("reward") for row in rows] == [1.0, 0.0, 0.0, None, 1.0, 1.0, None]
    assert [row["parts"]["format"] for row in rows if "parts" in row] == [1.0, 1.0, 0.0, 0.0, 1.0]
    assert rows[2]["reason"]
    assert "row 3: gold=None: missing or not text; give the reference answer" in output
    assert "row 6: line='not json': not JSON" in output
    assert "5 completions, mean reward 0.6000: correct 3, wrong 1, no_answer 1; 2 bad rows" in output


BAD_ROWS: list[tuple[object, str]] = [
    (b"", "line='': not JSON"),
    (b"\xff\xfe{}", "line='\\\\xff\\\\xfe{}': not JSON"),
    (b"[" * 100_000, "line='[[["),
    ([1, 2], "line='[1, 2]': not an object; write"),
    ({"gold": "4"}, "completion=None: missing or not text; give it in a column"),
    ({"text": None, "gold": "4"}, "completion=None: missing"),
    ({"text": "x", "gold": []}, "gold=[]: missing or not text; give"),
    ({"text": "x", "gold": ["4", 4]}, "gold=['4', 4]: missing"),
    ({"text": "x", "gold": "4", "checker": ["math"]}, "checker=\"['math']\": no such checker; did you mean 'math'?"),
    ({"text": "x", "gold": "4", "checker": "intger"}, "checker='intger': no such checker; did you mean 'integer'?"),
    ({"text": "x", "gold": "4", "num_tokens": "many"}, "num_tokens='many': not a whole number from 0 on; give"),
    ({"text": "x", "gold": "4", "num_tokens": -1}, "num_tokens=-1: not a whole number"),
    ({"text": "x", "gold": "4", "step": None}, "step=None: not a whole number"),
    ({"text": "x", "gold": "4", "step": True}, "step=True: not a whole number"),
    ({"text": "x", "gold": "4", "answer_style": {}}, "answer_style={}: no such style; use one of boxed, tags"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS, ids=[reason for _, reason in BAD_ROWS])
def test_a_bad_row_has_its_reason(row: object, reason: str, tmp_path: Path) -> None:
    [found, good] = read_completions(Path(write(tmp_path / "rows.jsonl", [row, ROWS[0]])))
    assert found.fault is not None
    assert found.fault.startswith(reason)
    assert good.fault is None


@pytest.mark.parametrize(
    ("rewards", "needed"),
    [
        ([RewardSpec(name="correctness"), RewardSpec(name="format")], {}),
        ([RewardSpec(name="length")], {"num_tokens": "length"}),
        ([RewardSpec(name="length", options={"warmup_steps": 3})], {"num_tokens": "length", "step": "length"}),
        ([RewardSpec(name="cosine", options={"max_tokens": 9})], {"num_tokens": "cosine"}),
        ([RewardSpec(name="overlong", options={"max_tokens": 9, "cache_tokens": 3})], {"num_tokens": "overlong"}),
        ([RewardSpec(name="l1_exact", options={"target_tokens": 9})], {"num_tokens": "l1_exact"}),
        ([RewardSpec(name="l1_max", options={"target_tokens": 9})], {"num_tokens": "l1_max"}),
    ],
)
def test_what_a_reward_depends_on_must_be_there(
    rewards: list[RewardSpec], needed: dict[str, str], tmp_path: Path
) -> None:
    assert columns_needed(rewards) == needed
    full = {"text": "x", "gold": "4", "num_tokens": 0, "step": 0}
    rows = [full, *({key: full[key] for key in full if key != column} for column in needed)]
    good, *bad = read_completions(Path(write(tmp_path / "rows.jsonl", rows)), needed)
    assert good.fault is None
    for row, (column, reward) in zip(bad, needed.items(), strict=True):
        assert row.fault is not None
        assert row.fault.startswith(f"{column}=None: missing, and the reward {reward!r} depends on it; give ")


def test_rows_without_tokens_are_not_taken_for_empty_ones(tmp_path: Path, tiny_model: Path) -> None:
    recipe = boxed_recipe(tmp_path, tiny_model, rewards=[{"name": "length"}])
    rows = [{"text": "\\boxed{4}", "gold": "4", "group": 1, **tokens} for tokens in ({"num_tokens": 5}, {})]
    code, output = run_grpo("score", write(tmp_path / "rows.jsonl", rows), "--recipe", recipe)
    assert code == 0, output
    assert "row 1: num_tokens=None: missing, and the reward 'length' depends on it" in output
    assert "1 completions, mean reward 0.0000: correct 1; 1 bad rows" in output


class NotingScorer:
    """Notes when batches come."""

    def __init__(self) -> None:
        self.num_submitted = 0

    def submit(self, batch: object) -> None:
        self.num_submitted += 1


def test_the_batch_behind_is_under_way_while_one_is_waited_for() -> None:
    scorers = [NotingScorer(), NotingScorer()]
    seen = [scorers[1].num_submitted for _ in submitted_ahead([[], [], []], scorers)]  # type: ignore[arg-type]
    assert seen == [2, 3, 3]
    assert scorers[0].num_submitted == 3


def test_more_than_one_batch_keeps_its_order(tmp_path: Path) -> None:
    """Three batches with answers that need a worker, and bad rows between them."""
    right, wrong = "<think>a</think><answer>1+x</answer>", "<think>a</think><answer>2+x</answer>"
    rows: list[Any] = [{"text": wrong if n % 3 else right, "gold": "x+1", "n": n} for n in range(1300)]
    rows[700] = {"n": 700}
    out = tmp_path / "scored.jsonl"
    code, output = run_grpo("score", write(tmp_path / "rows.jsonl", rows), "--out", str(out))
    assert code == 0, output
    found = read(out)
    assert [row["n"] for row in found] == list(range(1300))
    assert all("error" in row if row["n"] == 700 else row["reward"] == (row["n"] % 3 == 0) for row in found)


FAILING = [{"name": "correctness"}, {"name": "math:factorial"}]
"""A function of one's own that raises, since it takes no completions."""


def test_a_reward_that_fails_is_not_hidden(tmp_path: Path, tiny_model: Path) -> None:
    recipe = boxed_recipe(tmp_path, tiny_model, rewards=FAILING)
    out = tmp_path / "scored.jsonl"
    file = write(tmp_path / "rows.jsonl", [{"text": "\\boxed{4}", "gold": "4", "n": n} for n in range(7)])
    code, output = run_grpo("score", file, "--recipe", recipe, "--out", str(out))
    assert code == EXIT_FAILED, output
    lines = output.splitlines()
    assert lines[0] == "7 completions, mean reward 1.0000: correct 7; 0 bad rows"
    assert [line.partition(": TypeError")[0] for line in lines[1:-1]] == [
        f"row {n}: reward math:factorial crashed" for n in range(5)
    ]
    assert lines[-1].startswith("rewards.name='math:factorial': failed on 7 completions")
    assert [row["parts"]["math:factorial"] for row in read(out)] == [None] * 7


def test_a_reward_that_fails_is_not_hidden_in_a_comparison(tmp_path: Path, tiny_model: Path) -> None:
    recipe = boxed_recipe(tmp_path, tiny_model, rewards=FAILING)
    code, output = run_grpo("score", write(tmp_path / "rows.jsonl", ROWS[:1]), "--compare", recipe)
    assert code == EXIT_FAILED, output
    assert "of 1 completions, " in output
    assert output.splitlines()[-1].startswith("B: rewards.name='math:factorial': failed on 1 completions")


def test_groups_are_neighbours_and_batches_hold_whole_ones(tmp_path: Path) -> None:
    def group(number: int, size: int) -> list[dict[str, Any]]:
        return [{"text": "x", "gold": "4", "group": number}] * size

    rows = [*group(1, 300), *group(2, 300), b"broken", *group(3, 2), {"text": "x", "gold": "4"}, *group(1, 1)]
    found = list(batches(read_completions(Path(write(tmp_path / "rows.jsonl", rows)))))
    assert [[len(group) for group in batch] for batch in found] == [[300, 300], [1, 2, 1, 1]]
    assert [row.number for batch in found for group in batch for row in group] == list(range(605))


def test_score_takes_rewards_and_template_from_a_recipe(tmp_path: Path, tiny_model: Path) -> None:
    """The toy's template asks for a box, so that a box is the right form."""
    recipe = boxed_recipe(tmp_path, tiny_model, rewards=[{"name": "format", "weight": 3.0}])
    file = write(tmp_path / "rows.jsonl", [{"completion": "It is \\boxed{4}.", "gold": "4"}])
    code, output = run_grpo("score", file, "--recipe", recipe)
    assert code == 0, output
    assert json.loads(output.splitlines()[0])["reward"] == 3.0
    code, output = run_grpo("score", file, "--recipe", recipe, "rewards.0.weight=5")
    assert code == 0, output
    assert json.loads(output.splitlines()[0])["reward"] == 5.0


def test_overrides_may_stand_anywhere_and_nothing_else_may() -> None:
    assert parse(["score", "f", "--recipe", "r", "a.b=1", "c.d=2"]).overrides == ["a.b=1", "c.d=2"]
    assert parse(["score", "f", "a.b=1", "--selfcheck"]).overrides == ["a.b=1"]
    for words in (["score", "f", "--selfcheck", "word"], ["score", "f", "--nothing=1"], ["report", "f", "a.b=1"]):
        with pytest.raises(SystemExit):
            parse(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.jsonl"], "grpo: FILE=nowhere.jsonl: no such file; give a JSONL file\n"),
        (["{rows}", "a.b=1"], "grpo: override=a.b=1: there is no recipe to change; give one with --recipe\n"),
        (["{rows}", "--out", "{rows}"], "grpo: --out={rows}: is the file that is read; give another\n"),
        (["{rows}", "--out", "no/x"], "grpo: --out=no/x: No such file or directory; make that folder first\n"),
        (
            ["{rows}", "--out", "/dev/full"],
            "grpo: --out=/dev/full: No space left on device; free some room or choose another place\n",
        ),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], message: str, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", ROWS)
    code, output = run_grpo("score", *(word.format(rows=rows) for word in words))
    assert code == EXIT_USER_ERROR
    assert output == message.format(rows=rows)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == len(ROWS)


def test_an_interrupted_run_keeps_the_rows_that_are_done(tmp_path: Path) -> None:
    out = tmp_path / "scored.jsonl"
    file = write(tmp_path / "rows.jsonl", ({**ROWS[0], "n": n} for n in range(40_000)))
    process = start_grpo("score", file, "--out", str(out))
    wait_for(lambda: out.exists() and out.stat().st_size, 60, "the first rows")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED, output
    assert "interrupted; rows that are written are whole" in output
    assert "Traceback" not in output
    kept = read(out)
    assert 0 < len(kept) < 40_000
    assert [row["n"] for row in kept] == list(range(len(kept)))


def test_nothing_heavy_is_imported_to_score_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", ROWS)
    for words in ([file], [file, "--selfcheck"]):
        script = f"""
import sys
from grpo.cli import main
try:
    main(["score", *{words!r}])
except SystemExit:
    print(sorted({{"torch", "transformers", "vllm", "datasets"}} & set(sys.modules)), file=sys.stderr)
"""
        output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr
        assert output.splitlines()[-1] == "[]"


class Terminal(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def test_the_bar_is_for_terminals_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = []
    for is_terminal, rows_on_screen in ((True, False), (True, True), (False, False)):
        monkeypatch.setattr("sys.stdout", Terminal(True))
        stream = Terminal(is_terminal)
        with progress(7, rows_on_screen, stream) as advance:
            advance(3)
            advance(4)
        shown.append("7/7" in stream.getvalue())
        assert is_terminal or stream.getvalue() == ""
    assert shown == [True, False, False]


def test_rows_are_json_whatever_the_stream_can_say() -> None:
    row = {"text": "é 三 \ud800"}
    for encoding in ("utf-8", "ascii"):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding)
        RowWriter(stream, "stdout").write(row)
        stream.flush()
        assert json.loads(raw.getvalue()) == row


def test_text_for_the_screen_is_one_short_harmless_line() -> None:
    assert short("a\n  b\x1b[31m") == "a b\N{REPLACEMENT CHARACTER}[31m"
    assert short("x" * 150) == "x" * 100 + " … 50 more"


# Two recipes


def test_compare_shows_where_two_recipes_differ(tmp_path: Path, tiny_model: Path) -> None:
    """The default looks for an answer in tags, the recipe for one in a box."""
    rows = [
        {"text": "<think>x</think><answer>4</answer>", "gold": "4"},
        {"text": "<think>x</think><answer>\\boxed{4}</answer>", "gold": "4"},
        {"text": "so \\boxed{5}", "gold": "4"},
        {"text": "nothing", "gold": "4"},
        {"text": "no gold"},
    ]
    recipe = boxed_recipe(tmp_path, tiny_model, rewards=[{"name": "correctness", "weight": 2.0}])
    out = tmp_path / "differences.jsonl"
    file = write(tmp_path / "rows.jsonl", rows)
    code, output = run_grpo("score", file, "--compare", recipe, "--out", str(out))
    assert code == 0, output
    lines = output.splitlines()
    assert lines[:3] == [
        "row 4: gold=None: missing or not text; give the reference answer, or a list of several",
        "A: the default rewards, mean reward 0.5000",
        f"B: {recipe}, mean reward 0.5000",
    ]
    assert [line.split() for line in lines[5:8]] == [
        ["correct", "wrong", "no_answer"],
        ["correct", "1", "0", "1"],
        ["no_answer", "0", "1", "1"],
    ]
    assert lines[9:11] == ["of 4 completions, 2 have another outcome and 2 another reward", "row 0: gold 4"]
    assert lines[11].startswith("  A correct       4")
    assert lines[12].startswith("  B no_answer     no answer  (")
    assert lines[13] == "row 2: gold 4"
    assert lines[15].startswith("  B wrong         5")
    found = read(out)
    assert [(row["row"], row["outcome_a"], row["outcome_b"]) for row in found] == [
        (0, "correct", "no_answer"),
        (2, "no_answer", "wrong"),
    ]
    assert (found[0]["gold"], found[0]["answer_a"], found[0]["answer_b"]) == ("4", "4", None)
    assert (found[0]["reward_a"], found[0]["reward_b"]) == (1.0, 0.0)
    assert found[0]["reason_b"]


def test_a_recipe_agrees_with_itself(tmp_path: Path, tiny_model: Path) -> None:
    recipe = boxed_recipe(tmp_path, tiny_model)
    code, output = run_grpo("score", write(tmp_path / "rows.jsonl", ROWS), "--recipe", recipe, "--compare", recipe)
    assert code == 0, output
    assert output.splitlines()[-1] == "of 5 completions, 0 have another outcome and 0 another reward"


# Golds


def test_selfcheck_lists_golds_that_do_not_grade_themselves(tmp_path: Path) -> None:
    golds = [{"gold": "4", "checker": "integer"}, {"gold": "four", "checker": "integer"}, {"gold": ["1/2", "0.5"]}, {}]
    out = tmp_path / "bad.jsonl"
    code, output = run_grpo("score", write(tmp_path / "golds.jsonl", golds), "--selfcheck", "--out", str(out))
    assert code == EXIT_FAILED
    lines = output.splitlines()
    assert lines[0].startswith("row 1: gold four: ")
    assert lines[1].startswith("row 3: gold=None: missing")
    assert lines[2:] == ["4 golds: 2 do not grade themselves correct"]
    assert [(row["row"], row["gold"], row["checker"]) for row in read(out)] == [(1, "four", "integer"), (3, "", "math")]


def test_selfcheck_of_good_golds(tmp_path: Path) -> None:
    code, output = run_grpo("score", write(tmp_path / "golds.jsonl", [{"gold": "4"}] * 3), "--selfcheck")
    assert (code, output) == (0, "3 golds: all grade themselves correct\n")


def test_selfcheck_of_a_recipes_sources(tmp_path: Path, tiny_model: Path) -> None:
    golds = [{"question": "Q", "answer": "4"}, {"question": "Q", "answer": "four"}, {"question": "Q"}]
    path = write(tmp_path / "rows.jsonl", golds)
    recipe = boxed_recipe(
        tmp_path, tiny_model, data={"train": {"source": "dataset", "path": path, "checker": "integer"}}
    )
    code, output = run_grpo("score", recipe, "--selfcheck")
    assert code == EXIT_FAILED
    lines = output.splitlines()
    assert lines[0].startswith("data.train row 1: gold four: ")
    assert lines[1].startswith("data.train row 2: column 'answer' has no value")
    assert lines[2:] == ["11 golds: 2 do not grade themselves correct"]
    code, output = run_grpo("score", recipe, "--selfcheck", "data.train.num_problems=1")
    assert code == 0, output


def test_selfcheck_names_the_sources_with_a_checker_that_there_is_not(tmp_path: Path, tiny_model: Path) -> None:
    sums = {"source": "arithmetic", "num_problems": 4}
    wrong = {"eval": {"sources": [{**sums, "checker": "intger"}, {**sums, "seed": 1, "checker": "integer"}]}}
    code, output = run_grpo("score", boxed_recipe(tmp_path, tiny_model, **wrong), "--selfcheck")
    assert code == EXIT_USER_ERROR
    assert output == "grpo: eval.sources.0.checker='intger': no such checker; did you mean 'integer'?\n"
    wrong["data"] = {"train": {**sums, "checker": "mth"}}  # type: ignore[dict-item]
    code, output = run_grpo("score", boxed_recipe(tmp_path, tiny_model, **wrong), "--selfcheck")
    assert [line.partition("=")[0] for line in output.splitlines()] == [
        "grpo: data.train.checker",
        "eval.sources.0.checker",
    ]


def test_selfcheck_names_the_source_that_cannot_be_read(tmp_path: Path, tiny_model: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"question": "Q", "answer": "4"}])
    held_out = {"source": "dataset", "path": path, "columns": {"gold": "target"}}
    recipe = boxed_recipe(tmp_path, tiny_model, eval={"sources": [held_out]})
    code, output = run_grpo("score", recipe, "--selfcheck")
    assert code == EXIT_USER_ERROR
    assert output.startswith("grpo: eval.sources.0.columns.gold='target': the data has no such column")

"""The stable entry for scripts: the command on a file, and one answer in this process."""

import json
import subprocess
import sys
import threading
import time

import pytest

from rewards.verify import Question, Verifier, main, verify_answer

BOMB = "10^{10^{10^{10}}}+1"
ROWS = [
    {"id": "a", "gold": "\\frac{1}{2}", "prediction": "0.5", "level": "answer"},
    {"id": "b", "gold": "7", "prediction": "so \\boxed{7}", "level": "completion"},
    {"id": "c", "gold": "7", "prediction": "so 7", "level": "completion"},
    {"id": "d", "gold": "7", "prediction": "<think>7</think><answer>8</answer>"},
    {"id": 5, "gold": "", "prediction": "7", "level": "answer"},
    {"id": "e", "gold": "x+1", "prediction": "(" * 100 + "1" + ")" * 100, "level": "answer"},
    {"id": "f", "gold": "x+1", "prediction": BOMB, "level": "answer"},
    {"id": "g", "gold": "B", "prediction": "(b)", "level": "answer", "checker": "multiple_choice"},
    {"id": "h", "gold": '{"any_of": ["1", "one"]}', "prediction": "one", "level": "answer"},
]
OUTCOMES = ["correct", "correct", "no_answer", "wrong", "gold_unusable", "malformed", "timed_out", "correct", "correct"]


def test_command_keeps_the_rows_in_order(tmp_path):
    file = tmp_path / "rows.jsonl"
    bad = ["not JSON", json.dumps({"id": "x", "gold": 7, "prediction": "7"}), '["list"]']
    file.write_text("\n".join([bad[0], *map(json.dumps, ROWS), *bad[1:]]) + "\n")
    command = [sys.executable, "-m", "rewards.verify", "--jsonl", str(file), "--workers", "2", "--deadline-s", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["outcome"] for row in written] == ["bad_row", *OUTCOMES, "bad_row", "bad_row"]
    assert [row["id"] for row in written] == [None, *(row["id"] for row in ROWS), "x", None]
    assert [row["reward"] for row in written] == [float(row["outcome"] == "correct") for row in written]
    assert all(0 <= row["wall_s"] < 5 for row in written)
    assert written[1 + OUTCOMES.index("timed_out")]["wall_s"] >= 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["row 0", "row 10", "row 11"]
    assert "gold=7: missing or not text" in done.stderr


def test_command_writes_a_file_and_refuses_a_missing_one(tmp_path, capsys):
    file, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\n")
    assert main(["--jsonl", str(file), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["outcome"] == "correct"
    assert main(["--jsonl", str(tmp_path / "none.jsonl")]) == 2
    assert "give the path of a JSONL file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gold", "prediction", "right"),
    [
        ("42", "42", True),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("42", "<think>\\boxed{42}</think> I do not know.", False),
        ("42", "<think>a</think><answer>42</answer>", True),
        ("42", "so \\boxed{42}", True),
        ("3", BOMB, False),
        ("\\sqrt{2}", "\\sqrt{2.0}", True),
    ],
)
def test_one_answer(gold, prediction, right):
    began = time.monotonic()
    assert verify_answer(gold, prediction) is right
    assert time.monotonic() - began < 15


def test_one_answer_from_many_threads():
    found = {}

    def ask(number):
        found[number] = verify_answer(f"\\sqrt{{{number * number}}}", str(number + number % 2))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number % 2 == 0 for number in range(1, 9)}


def test_equal_questions_are_judged_once():
    with Verifier() as verifier:
        verdicts = verifier.verdicts([Question("x+1", "1+x", "answer"), Question("x+1", "\\boxed{1+x}")] * 3)
    assert len({verdict.wall_s for verdict in verdicts}) == 1
    assert {verdict.outcome for verdict in verdicts} == {"correct"}

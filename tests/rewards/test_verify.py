"""The stable entry for scripts: the command on a file, and one answer in this process."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import rewards
from rewards.answer_policy import DEFAULT_POLICY
from rewards.errors import PoolError
from rewards.records import ScoreRequest, Verdict
from rewards.verdicts.distinct import DistinctAnswers
from rewards.verdicts.one_answer import KEPT_VERIFIER
from rewards.verdicts.question_rows import verify_rows
from rewards.verify import Question, Verifier, main, parse_policy, verify_answer
from rewards.workers.ahead import one_ahead
from rewards.workers.job import CallResult
from rewards.workers.worker import Call

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


GOOD = json.dumps(ROWS[0]).encode()


def verify_file(folder: Path, lines: list[bytes], *options: str) -> list[dict]:
    file, out = folder / "rows.jsonl", folder / "out.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    assert main(["--jsonl", str(file), "--out", str(out), *options]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


BAD_LINES = [
    (b"", "line='': not JSON"),
    (b"\xff", "line='\\\\xff': not JSON"),
    (b"[" * 100_000, "line='[[["),
    (b'{"id": ' + b"[" * 150 + b"]" * 150 + b"}", 'line=\'{"id":'),
    (b"7", "line='7': not an object; write {…} on each line"),
    (b'{"gold": "7"}', "prediction=None: missing or not text; give it as a string"),
    (b'{"gold": "7", "prediction": "7", "level": {}}', "level={}: no such level; use one of"),
    (b'{"gold": "7", "prediction": "7", "level": "anser"}', "level='anser': no such level; did you mean 'answer'?"),
    (b'{"gold": "7", "prediction": "7", "checker": ["math"]}', "checker="),
    (b'{"gold": "7", "prediction": "7", "checker": "mth"}', "checker='mth': no such checker; did you mean 'math'?"),
]


def test_a_bad_row_has_its_reason_and_the_rows_behind_it_are_verified(tmp_path):
    written = verify_file(tmp_path, [line for bad, _ in BAD_LINES for line in (bad, GOOD)])
    assert [row["outcome"] for row in written] == ["bad_row", "correct"] * len(BAD_LINES)
    for row, (_, reason) in zip(written[::2], BAD_LINES, strict=True):
        assert row["reason"].startswith(reason)
        assert "; " in row["reason"]
        assert len(row["reason"]) < 300


def test_a_byte_order_mark_is_no_fault(tmp_path):
    [row] = verify_file(tmp_path, [b"\xef\xbb\xbf" + GOOD])
    assert row["outcome"] == "correct"


@pytest.mark.parametrize("identity", ["\ud800", "é三"])
def test_every_id_can_be_written(identity, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**ROWS[0], "id": identity}) + "\n")
    command = [sys.executable, "-m", "rewards.verify", "--jsonl", str(file)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jsonl", "{folder}/none"], "--jsonl={folder}/none: No such file or directory; give the path of a JSONL"),
        (["--jsonl", "{folder}"], "--jsonl={folder}: Is a directory; give the path of a JSONL file"),
        (["--out", "{folder}/no/x"], "--out={folder}/no/x: No such file or directory; make that folder first"),
        (["--out", "{folder}"], "--out={folder}: Is a directory; choose another place"),
        (["--out", "{folder}/rows"], "--out={folder}/rows: is the file that is read; give another"),
        (["--out", "{folder}/link"], "--out={folder}/link: is the file that is read; give another"),
        (["--out", "/dev/full"], "--out=/dev/full: No space left on device; free some room or choose another place"),
        (["--workers", "0"], "--workers=0: not above 0; give 1 or more"),
        (["--deadline-s", "nan"], "--deadline-s=nan: not a number of seconds above 0; give one"),
        (["--policy", "percent"], "--policy=percent: has no value; write key=value"),
        (["--policy", "percnt=either"], "--policy=percnt='either': no such policy; did you mean 'percent'?"),
        (["--policy", "percent=x"], "--policy=percent='x': not one of its values; use 'value' or 'either'"),
        (["--policy", "rounding_digits=1"], "--policy=rounding_digits=1: input should be greater than or equal to 2;"),
    ],
)
def test_what_cannot_be_done_is_said(options, message, tmp_path, capsys):
    file = tmp_path / "rows"
    file.write_bytes(GOOD)
    (tmp_path / "link").symlink_to(file)
    assert main(["--jsonl", str(file), *(word.format(folder=tmp_path) for word in options)]) == 2
    assert capsys.readouterr().err.startswith(message.format(folder=tmp_path))
    assert file.read_bytes() == GOOD


def test_policies_can_be_set(tmp_path):
    lines = [json.dumps({"gold": "60\\%", "prediction": "60", "level": "answer"}).encode()]
    assert verify_file(tmp_path, lines)[0]["outcome"] == "wrong"
    assert verify_file(tmp_path, lines, "--policy", "percent=either")[0]["outcome"] == "correct"
    policy = parse_policy(["several_boxes=refuse", "rounding_digits=null", "decimal_comma=true"])
    assert (policy.several_boxes, policy.rounding_digits, policy.decimal_comma) == ("refuse", None, True)


class SlowVerifier:
    """Notes when questions come and when their verdicts are waited for."""

    def __init__(self):
        self.log = []

    def submit(self, questions):
        number = len([entry for entry in self.log if entry[0] == "submitted"])
        self.log.append(("submitted", number))

        def collect():
            self.log.append(("collected", number))
            return [Verdict("correct")] * len(questions)

        return collect


def test_the_rows_behind_are_under_way_while_those_in_front_are_waited_for():
    verifier = SlowVerifier()
    written = list(verify_rows([GOOD] * 2500, verifier))
    assert len(written) == 2500
    assert verifier.log == [
        ("submitted", 0),
        ("submitted", 1),
        ("collected", 0),
        ("submitted", 2),
        ("collected", 1),
        ("collected", 2),
    ]


@pytest.mark.parametrize("num", range(4))
def test_one_ahead_gives_all_in_order(num):
    assert list(one_ahead(range(1, num + 1))) == list(range(1, num + 1))


def test_a_distinct_answer_becomes_one_call_and_only_where_a_worker_is_needed():
    answers = DistinctAnswers(DEFAULT_POLICY)
    quick, slow, again = (answers.add("math", "7", answer) for answer in ("7", "x+1", "x+1"))
    assert slow == again
    assert answers.open_calls == (Call("verify", slow),)
    assert answers.verdict(quick).outcome == "correct"
    with pytest.raises(KeyError):
        answers.verdict(slow)
    answers.resolve([CallResult("timed_out", detail="late")])
    assert (answers.verdict(slow).outcome, answers.verdict(slow).reason) == ("timed_out", "late")


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


def test_a_bomb_does_not_hold_up_another_thread(monkeypatch):
    """With as many workers as cores, and two at the least here."""
    monkeypatch.setattr("rewards.verdicts.one_answer.num_cpus", lambda: 2)
    KEPT_VERIFIER.close()
    assert verify_answer("x+1", "1+x")
    bomb = threading.Thread(target=verify_answer, args=("x+1", BOMB))
    bomb.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert verify_answer("x+2", "2+x")
    assert time.monotonic() - began < 3
    bomb.join()
    KEPT_VERIFIER.close()


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


def test_equal_questions_are_verified_once():
    with Verifier() as verifier:
        verdicts = verifier.verdicts([Question("x+1", "1+x", "answer"), Question("x+1", "\\boxed{1+x}")] * 3)
    assert len({verdict.wall_s for verdict in verdicts}) == 1
    assert {verdict.outcome for verdict in verdicts} == {"correct"}


def test_what_the_package_names_is_loaded_late():
    script = "import sys, rewards; print([name for name in sys.modules if name.startswith('rewards.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert rewards.verify_answer is verify_answer
    assert rewards.ScoreRequest is ScoreRequest
    with pytest.raises(AttributeError, match="no attribute 'verify_answers'"):
        rewards.verify_answers  # noqa: B018


def test_a_dead_pool_is_replaced():
    assert verify_answer("x+1", "1+x")
    dead = KEPT_VERIFIER.get()
    dead.close()
    with pytest.raises(PoolError):
        dead.verdicts([Question("x+1", "1+x")])
    assert verify_answer("x+1", "1+x")
    assert KEPT_VERIFIER.get() is not dead


def test_a_fork_opens_workers_of_its_own():
    assert verify_answer("x+1", "1+x")
    child = os.fork()
    if child == 0:
        os._exit(0 if verify_answer("x+2", "2+x") and not verify_answer("x+2", "3+x") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

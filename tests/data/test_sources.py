"""Files, folders and the hub: every bad row is named, every mistake in a recipe has its message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from pydantic import ValidationError

from data.errors import DataError
from data.sources import LoadedProblems, load_problems
from data.spec import SourceSpec

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "datasets"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"the public data sets are not at {REAL}")

GOOD = [{"question": f"Q{i}?", "answer": str(i), "level": i % 3} for i in range(6)]


def write(path: Path, rows: list[object]) -> str:
    """Each row as a line of JSON; texts as they are, for lines that are not JSON."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def load(path: str, source: str = "dataset", **spec: object) -> LoadedProblems:
    return load_problems(SourceSpec(source=source, path=path, **spec))


def test_bad_rows_are_named_and_good_ones_kept(tmp_path):
    rows = [
        GOOD[0],
        "{not json",
        {"question": "", "answer": "1"},
        {"question": "no answer"},
        {"question": "none", "answer": None},
        {"question": "flag", "answer": True},
        {"question": "list", "answer": []},
        {"question": 5, "answer": "1"},
        "[1, 2]",
        "",
        {"question": "NaN", "answer": float("nan")},
        {"question": "number", "answer": 7},
        {"question": "fraction", "answer": 0.5},
    ]
    loaded = load(write(tmp_path / "mixed.jsonl", rows))
    assert [(p.row, p.gold, p.id) for p in loaded.problems] == [
        (0, "0", "dataset/train/0"),
        (11, "7", "dataset/train/11"),
        (12, "0.5", "dataset/train/12"),
    ]
    reasons = {each.row: each.reason for each in loaded.rejected}
    assert list(reasons) == list(range(1, 11))
    assert "not valid JSON" in reasons[1]
    assert "no question" in reasons[2]
    assert "no question" in reasons[7]
    assert "'answer' has no value" in reasons[3]
    assert "bool" in reasons[5]
    assert "JSON list" in reasons[8]
    assert "empty list" in reasons[6]
    assert "nan" in reasons[10]


def test_a_column_of_lists_holds_several_references(tmp_path):
    rows = [{"question": "Q", "answer": ["1/2", "0.5"]}, {"question": "Q", "answer": ["7"]}]
    for source in ("dataset", "math"):
        columns = {"question": "question", "gold": "answer"}
        loaded = load(write(tmp_path / "several.jsonl", rows), source, columns=columns)
        assert [problem.gold for problem in loaded.problems] == ['{"any_of": ["1/2", "0.5"]}', "7"]


def test_broken_bytes_and_blank_ends_do_no_harm(tmp_path):
    file = tmp_path / "bytes.jsonl"
    good = json.dumps(GOOD[0]).encode()
    file.write_bytes(b"\n" + good + b"\r\n\xff\xfe\n" + b"[" * 100_000 + b"\n" + good + b"\n\n\n")
    loaded = load(str(file))
    assert [p.row for p in loaded.problems] == [1, 4]
    assert [each.row for each in loaded.rejected] == [0, 2, 3]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path, name):
    content = "question,answer\nQ,1\n" if name == "a.csv" else '{"question": "Q", "answer": "1"}'
    (tmp_path / name).write_text(f"[{content}]" if name == "a.json" else content, encoding="utf-8-sig")
    assert load(str(tmp_path / name)).problems[0].columns == {"question": "Q", "answer": "1"}


def test_ids_come_from_their_column_and_stay_unique(tmp_path):
    rows = [{"question": "Q", "answer": "1", "key": key} for key in ("a", "b", "a", None, 7)]
    loaded = load(write(tmp_path / "ids.jsonl", rows), columns={"id": "key"})
    assert [p.id for p in loaded.problems] == ["a", "b", "7"]
    assert [(each.row, each.reason) for each in loaded.rejected] == [
        (2, "id 'a' is that of row 0 already"),
        (3, "column 'key' has no value"),
    ]


def test_columns_checker_and_row_are_handed_on(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"prompt": " Q? ", "label": 3, "topic": "x"}])
    problem = load(path, columns={"question": "prompt", "gold": "label"}, checker="exact").problems[0]
    assert (problem.question, problem.gold, problem.checker) == ("Q?", "3", "exact")
    assert problem.columns == {"prompt": " Q? ", "label": 3, "topic": "x"}


@pytest.mark.parametrize(
    ("values", "wanted", "rows"),
    [
        ([1, 2, 3], [2, 3], [1, 2]),
        ([1.0, 2.0, 3.0], [2], [1]),
        (["1", "2", "3"], [2.0], [1]),
        (["Level 1", "Level 2", "Level ?"], [1, 2], [0, 1]),
        (["Algebra", "Geometry", "algebra"], ["algebra"], [0, 2]),
        ([True, False, None], [True], [0]),
    ],
)
def test_keep_compares_by_value(tmp_path, values, wanted, rows):
    lines = [{"question": "Q", "answer": "1", "level": value} for value in values]
    loaded = load(write(tmp_path / "levels.jsonl", lines), keep={"level": wanted})
    assert [p.row for p in loaded.problems] == rows


def test_num_problems_counts_usable_rows_after_the_filter(tmp_path):
    path = write(tmp_path / "some.jsonl", [GOOD[0], {"answer": "1", "level": 0}, *GOOD[1:], "broken"])
    loaded = load(path, num_problems=2, keep={"level": [0]})
    assert [p.row for p in loaded.problems] == [0, 4]
    assert [each.row for each in loaded.rejected] == [1], "reading stops before the broken last line"
    assert len(load(path, num_problems=100).problems) == 6


def test_json_array_csv_and_parquet_give_the_same(tmp_path):
    rows = [{"question": "Q, one?", "answer": "007"}, {"question": "Q\ntwo?", "answer": "1.50"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text('question,answer\n"Q, one?",007\n"Q\ntwo?",1.50\n')
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    loads = [load(str(tmp_path / name)).problems for name in ("a.json", "a.csv", "a.parquet")]
    assert [(p.question, p.gold) for p in loads[0]] == [("Q, one?", "007"), ("Q\ntwo?", "1.50")]
    assert loads[0] == loads[1] == loads[2]


def test_csv_rows_of_the_wrong_length(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\nQ0,0\nQ1\nQ2,2,2\n")
    loaded = load(str(tmp_path / "a.csv"))
    assert [p.row for p in loaded.problems] == [0]
    assert [each.row for each in loaded.rejected] == [1, 2]


def test_a_folder_is_read_by_split(tmp_path):
    write(tmp_path / "train_1.jsonl", GOOD[:2])
    write(tmp_path / "train-2.jsonl", GOOD[2:3])
    (tmp_path / "test").mkdir()
    write(tmp_path / "test" / "part.jsonl", GOOD[3:])
    assert [p.row for p in load(str(tmp_path)).problems] == [0, 1, 2]
    assert {p.question for p in load(str(tmp_path), split="test").problems} == {"Q3?", "Q4?", "Q5?"}
    with pytest.raises(DataError, match=r"split='eval': no file in .*test/part.jsonl"):
        load(str(tmp_path), split="eval")


MISTAKES = [
    ({"columns": {"question": "qestion"}}, "columns.question='qestion': .*did you mean 'question'"),
    ({"columns": {"gold": "label"}}, "columns.gold='label': .*nown: answer, level, question"),
    ({"columns": {"id": "uid"}}, "columns.id='uid'"),
    ({"source": "math"}, "columns.question='problem': the data has no such column"),
    ({"keep": {"levle": [1]}}, "keep.levle='levle': .*did you mean 'level'"),
    ({"keep": {"level": [9]}}, "keep={'level': .*: no row passes; .* level has 0, 1, 2"),
    ({"subset": "main"}, "subset='main': a local file"),
    ({"source": "gsm8k"}, "none of 6 rows can be used.* row 0: column 'answer' has nothing after '####'"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_mistakes_are_told_by_name(tmp_path, changes, message):
    path = write(tmp_path / "good.jsonl", GOOD)
    with pytest.raises(DataError, match=message):
        load_problems(SourceSpec(**{"source": "dataset", "path": path} | changes))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "holds no rows"),
        ("a.csv", "question,answer\n", "holds no rows"),
        ("a.json", "[]", "holds no rows"),
        ("a.json", "[{]", "is not valid JSON"),
        ("a.jsonl", "{\n{\n", "none of 2 rows can be used.* row 0: is not valid JSON"),
        ("a.parquet", "not parquet", "cannot be read as Parquet"),
        ("a.txt", "question", "is of no known kind"),
    ],
)
def test_unusable_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load(str(tmp_path / name))


def test_missing_file_names_its_neighbour(tmp_path):
    write(tmp_path / "train.jsonl", GOOD)
    with pytest.raises(DataError, match=r"no such file; did you mean 'train\.jsonl'"):
        load(str(tmp_path / "trian.jsonl"))
    with pytest.raises(DataError, match=r"the folder .* does not exist either"):
        load(str(tmp_path / "nowhere" / "train.jsonl"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "gms8k"}, "source='gms8k': .*did you mean 'gsm8k'"),
        ({"source": "dataset"}, "path=None: source=dataset"),
        ({"source": "gsm8k", "options": {"max_value": 3}}, "options=.*only generated sources"),
        ({"source": "gsm8k", "columns": {"qestion": "q"}}, "columns.qestion='q': .*did you mean 'question'"),
        ({"source": "gsm8k", "num_problems": 0}, "num_problems"),
        ({"source": "gsm8k", "sede": 1}, "sede"),
    ],
)
def test_specs_are_refused_before_any_file_is_opened(changes, message):
    with pytest.raises(ValidationError, match=message):
        SourceSpec(**changes)


HUB_CALLS = [
    ({"source": "gsm8k"}, ("openai/gsm8k", "main", "train")),
    ({"source": "gsm8k", "path": "openai/gsm8k", "split": "test"}, ("openai/gsm8k", "main", "test")),
    ({"source": "math", "split": "test"}, ("nlile/hendrycks-MATH-benchmark", None, "test")),
    ({"source": "knights_knaves", "split": "test"}, ("K-and-K/knights-and-knaves", "test", "3ppl")),
    ({"source": "knights_knaves", "subset": "5ppl"}, ("K-and-K/knights-and-knaves", "train", "5ppl")),
    ({"source": "dataset", "path": "me/mine", "subset": "hard"}, ("me/mine", "hard", "train")),
]


@pytest.mark.parametrize(("spec", "expected"), HUB_CALLS)
def test_what_is_asked_of_the_hub(monkeypatch, spec, expected):
    row = {
        "question": "Q",
        "problem": "Q",
        "quiz": "Q",
        "names": ["A"],
        "solution": [True],
        "answer": "#### 1",
    }
    calls = []

    def load_dataset(path: str, name: str | None, split: str) -> datasets.Dataset:
        calls.append((path, name, split))
        return datasets.Dataset.from_list([row])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_problems(SourceSpec(**spec)).problems[0].question == "Q"
    assert calls == [expected]


def test_an_unreachable_hub_is_one_clear_error(tmp_path):
    """The real library, told to stay offline, with an empty cache."""
    code = (
        "from data.sources import load_problems; from data.spec import SourceSpec\n"
        "load_problems(SourceSpec(source='gsm8k'))"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    last = run.stderr.strip().splitlines()[-1]
    assert "DataError: path='openai/gsm8k'" in last
    assert "give a local file as path" in last


def test_the_spec_is_quick_to_import():
    code = "import sys, data.spec; print(sorted({'datasets', 'pandas', 'torch', 'yaml'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"


REAL_FILES = [
    ("gsm8k", "gsm8k_train.jsonl", 7473, {"integer"}),
    ("gsm8k", "gsm8k_test.jsonl", 1319, {"integer"}),
    ("math", "math500.jsonl", 500, {"math"}),
    ("math", "aime24.jsonl", 30, {"math"}),
    ("math", "amc23.jsonl", 83, {"math"}),
    *(("knights_knaves", f"knights_knaves_{n}ppl_train.jsonl", 900, {"knights_knaves"}) for n in (3, 4, 5)),
    *(("knights_knaves", f"knights_knaves_{n}ppl_test.jsonl", 100, {"knights_knaves"}) for n in (3, 4, 5)),
]


@needs_real_data
@pytest.mark.parametrize(("source", "name", "count", "checkers"), REAL_FILES)
def test_real_data_loads_whole(source, name, count, checkers):
    loaded = load(str(REAL / name), source)
    assert (len(loaded.problems), loaded.rejected) == (count, ())
    assert {p.checker for p in loaded.problems} == checkers
    assert len({p.id for p in loaded.problems}) == count


@needs_real_data
def test_real_golds_of_each_kind():
    first = {name: load(str(REAL / name), source).problems[0].gold for source, name, _, _ in REAL_FILES}
    assert first["gsm8k_train.jsonl"] == "72"
    assert first["math500.jsonl"] == r"\left( 3, \frac{\pi}{2} \right)"
    assert first["amc23.jsonl"] == "142"
    assert json.loads(first["knights_knaves_3ppl_test.jsonl"]) == {
        "Amelia": True,
        "Penelope": True,
        "Evelyn": False,
    }


@needs_real_data
def test_real_levels_can_be_chosen():
    problems = load(str(REAL / "math500.jsonl"), "math", keep={"level": ["Level 5"]}).problems
    assert {p.columns["level"] for p in problems} == {5.0}

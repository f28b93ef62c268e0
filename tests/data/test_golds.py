"""Gold answers out of cells: tables of (cell, expected) and of (cell, reason for refusal)."""

from __future__ import annotations

import json

import pytest

from data.golds import RowError, gsm8k_gold, knights_knaves_gold, last_boxed, math_gold, plain_gold

GSM8K = [
    ("48 + 24 = 72\n#### 72", "72", "integer"),
    ("#### 1,250", "1250", "integer"),
    ("#### 12,345,678", "12345678", "integer"),
    ("#### -5", "-5", "integer"),
    ("#### 7 is not it\n#### 8", "8", "integer"),
    ("#### 2.5", "2.5", "math"),
    ("#### 1/2", "1/2", "math"),
    ("#### 1,2", "1,2", "math"),
]


@pytest.mark.parametrize(("cell", "gold", "checker"), GSM8K)
def test_gsm8k_gold(cell, gold, checker):
    assert gsm8k_gold({"answer": cell}, "answer") == (gold, checker)


@pytest.mark.parametrize("cell", ["72", "the answer is 72", "48\n####", "####   ", "", None, True, ["#### 1"]])
def test_gsm8k_without_gold(cell):
    with pytest.raises(RowError, match="'answer'"):
        gsm8k_gold({"answer": cell}, "answer")


BOXED = [
    (r"so \boxed{5}.", "5"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"first \boxed{1}, then \boxed{x^{2}}", "x^{2}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{[0, 1\}} and }", r"[0, 1\}"),
    (r"\boxed{a \\ {b}}", r"a \\ {b}"),
    (r"\boxed{ 7 }", "7"),
    (r"\boxed{}", ""),
    (r"\boxed{5", None),
    (r"\boxed{\}", None),
    ("no box", None),
]


@pytest.mark.parametrize(("text", "content"), BOXED)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


MATH = [
    ("answer", r"\frac{1}{2}", r"\frac{1}{2}"),
    ("answer", 142.0, "142"),
    ("answer", 0.5, "0.5"),
    ("answer", -3, "-3"),
    ("answer", r"Thus \boxed{9}", "9"),
    ("solution", r"Thus \boxed{\pi}", r"\pi"),
]


@pytest.mark.parametrize(("column", "cell", "gold"), MATH)
def test_math_gold(column, cell, gold):
    assert math_gold({column: cell}, column) == (gold, "math")


@pytest.mark.parametrize(
    ("column", "cell"), [("solution", "it is 5"), ("solution", r"\boxed{}"), ("answer", r"\boxed{5")]
)
def test_math_without_gold(column, cell):
    with pytest.raises(RowError, match="no closed"):
        math_gold({column: cell}, column)


REFUSED = [
    (None, "no value"),
    ("  ", "is empty"),
    (True, "holds a bool"),
    ([], "holds an empty list"),
    (["1", None], "no value"),
    ([["1"]], "holds a list"),
    ({"any_of": ["1"]}, "holds a dict"),
    (float("nan"), "holds nan"),
    (float("inf"), "holds inf"),
]


@pytest.mark.parametrize(("cell", "reason"), REFUSED)
def test_plain_gold_refuses(cell, reason):
    with pytest.raises(RowError, match=reason):
        plain_gold({"answer": cell}, "answer")


REFERENCES = [
    (["1/2", " 0.5 "], ["1/2", "0.5"]),
    (["drei", "三"], ["drei", "三"]),
    ([1, 2.5], ["1", "2.5"]),
]


@pytest.mark.parametrize(("cell", "texts"), REFERENCES)
def test_a_list_holds_several_references(cell, texts):
    gold = plain_gold({"answer": cell}, "answer")
    assert json.loads(gold.text) == {"any_of": texts}
    assert gold.checker == "math"


def test_a_list_of_one_is_a_plain_gold():
    assert plain_gold({"answer": ["1/2"]}, "answer") == ("1/2", "math")
    assert math_gold({"answer": [r"so \boxed{9}"]}, "answer") == ("9", "math")


def test_each_entry_of_a_list_is_read_like_a_cell():
    assert json.loads(math_gold({"answer": [r"so \boxed{9}", "3^2"]}, "answer").text) == {"any_of": ["9", "3^2"]}
    with pytest.raises(RowError, match="no closed"):
        math_gold({"solution": [r"\boxed{9}", "9"]}, "solution")


def test_knights_knaves_gold():
    row = {"names": ["Amelia", "Zoë"], "solution": [True, False]}
    gold = knights_knaves_gold(row, "solution")
    assert json.loads(gold.text) == {"Amelia": True, "Zoë": False}
    assert gold.checker == "knights_knaves"


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["A"], [True, False]),
        (["A", "A"], [True, False]),
        (["A"], [1]),
        (["A"], "T"),
        ([], []),
        (None, [True]),
        ([1], [True]),
    ],
)
def test_knights_knaves_lists_must_match(names, roles):
    with pytest.raises(RowError, match="column"):
        knights_knaves_gold({"names": names, "solution": roles}, "solution")

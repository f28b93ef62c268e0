import time

import pytest

from rewards.answers.extract import extract
from rewards.records import Outcome

NO, BAD = Outcome.NO_ANSWER, Outcome.MALFORMED
ROWS = [
    ("<think>a</think><answer> 42 </answer>", False, "tags", "42", None),
    ("a</think><answer>42</answer>", True, "tags", "42", None),
    ("<answer>42</answer>", False, "tags", "42", None),
    ("<answer>42</answer>", True, "tags", None, NO),
    (
        "<think>a</think><answer>not \\boxed{1} but \\boxed{\\frac{1}{2}}</answer>",
        False,
        "tags",
        "\\frac{1}{2}",
        None,
    ),
    ("\\boxed{1} or \\boxed{2}", False, "boxed", "1, 2", None),
    ("so $x = -\\boxed{3}$", False, "boxed", "-3", None),
    ("so $5 - \\boxed{3}$", False, "boxed", "3", None),
    ("<think>a</think><answer></answer>", False, "tags", None, NO),
    ("<think>a</think><answer>\\boxed{}</answer>", False, "tags", None, NO),
    ("<think>a</think>42", False, "tags", None, NO),
    ("<think><answer>42</answer></think>", False, "tags", None, NO),
    ("<think><answer>42</answer>", False, "tags", None, NO),
    ("<think>a</think><answer>1</answer><answer>2</answer>", False, "tags", None, NO),
    ("<think>a</think><answer>1", False, "tags", None, NO),
    ("<think>a</think></answer>1<answer>", False, "tags", None, NO),
    ("<think>a</think>```\n<answer>1</answer>\n```", False, "tags", None, NO),
    ("<think>a</think><think><answer>1</answer>", False, "tags", None, NO),
    ("<think>a</think>b</think><answer>1</answer>", False, "tags", "1", None),
    ("so \\boxed{1}, no: \\boxed{2}.", False, "boxed", "2", None),
    ("\\fbox{7}", False, "boxed", "7", None),
    ("\\boxed{\\boxed{7}}", False, "boxed", "7", None),
    ("\\boxed {7}", False, "boxed", "7", None),
    ("\\boxed{\\{1,2\\}}", False, "boxed", "\\{1,2\\}", None),
    ("\\boxed{1} \\boxed{2", False, "boxed", "1", None),
    ("<think>\\boxed{1}</think> no idea", False, "boxed", None, NO),
    ("\\boxed{1}", True, "boxed", None, NO),
    ("\\boxed", False, "boxed", None, NO),
    ("\\boxed{" * 12 + "1" + "}" * 12, False, "boxed", None, BAD),
]


@pytest.mark.parametrize(("text", "opens_think", "style", "answer", "outcome"), ROWS)
def test_extraction(text, opens_think, style, answer, outcome):
    found = extract(text, opens_think, style)
    assert (found.answer, found.outcome) == (answer, outcome)
    assert bool(found.reason) is (answer is None)


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<answer>", "{", "\\boxed{", "}", "\\", "```"])
@pytest.mark.parametrize("style", ["tags", "boxed"])
def test_hostile_texts_take_linear_time(piece, style):
    start = time.perf_counter()
    extract(piece * 100_000, False, style)
    extract("</think><answer>" + "\\boxed{" + piece * 100_000 + "</answer>", False, style)
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize(
    ("text", "style", "reason"),
    [
        ("<think>a</think> 42", "tags", "no answer block"),
        ("<think><answer>42</answer></think> so", "tags", "the answer stands only in the thinking"),
        ("<think>\\boxed{42}</think> so", "boxed", "the answer stands only in the thinking"),
        ("<think>\\boxed{42}", "boxed", "the thinking never ends"),
        ("<think>a</think><answer>1</answer><answer>2</answer>", "tags", "2 <answer> and 2 </answer>"),
        ("<think>a</think>\n```\n<answer>42</answer>\n```", "tags", "code fence"),
        ("<think>a</think><answer> </answer>", "tags", "the answer block is empty"),
        ("<think>a</think><answer>\\boxed{}</answer>", "tags", "the box is empty"),
        ("\\boxed{42", "boxed", "no balanced box"),
        ("\\boxed{" * 12 + "1" + "}" * 12, "boxed", "more than 8 boxes"),
    ],
)
def test_the_reason_says_which(text, style, reason):
    assert reason in extract(text, False, style).reason


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("-\\boxed{x-5}", "-(x-5)"),
        ("x=-\\boxed{2}, \\boxed{3}", "x = -2, 3"),
        ("$-\\boxed{2}$ or $-\\boxed{3}$", "-2, -3"),
        ("y=\\boxed{2}, x=\\boxed{3}", "y = 2, x = 3"),
        ("\u2212\\boxed{5}", "-5"),
        ("the value is -\\boxed{5}", "-5"),
        ("-\\left(\\boxed{5}\\right)", "-5"),
        ("\\pm\\boxed{5}", "\\pm 5"),
        ("so:\n- \\boxed{5}", "5"),
        ("- \\boxed{5}", "5"),
        ("5 - \\boxed{3}", "3"),
        ("\\boxed{4}.\n\\boxed{5}", "5"),
        ("x = \\boxed{2}\\text{ and }\\boxed{5}", "x = 2, 5"),
    ],
)
def test_what_stands_in_front_of_a_box(text, answer):
    """Signs and names belong to the answer, bullets and the terms of a sum do not."""
    assert extract(text, False, "boxed").answer == answer

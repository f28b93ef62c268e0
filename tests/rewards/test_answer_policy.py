"""Every policy of the math checker: what the default says, and what the other choice says, of the same pair."""

import pytest

from rewards.answer_policy import AnswerPolicy
from rewards.answers.extract import extract
from rewards.checkers import verify
from rewards.records import Outcome

TABLE = [
    ("percent", "value", "0.6", "60\\%", True),
    ("percent", "value", "60", "60\\%", False),
    ("percent", "either", "60", "60\\%", True),
    ("percent", "either", "60\\%", "60", True),
    ("percent", "either", "60", "61\\%", False),
    ("rounding_digits", 6, "\\frac{1}{3}", "0.333333", True),
    ("rounding_digits", 6, "\\frac{1}{3}", "0.33333", False),
    ("rounding_digits", 6, "\\sqrt{2}", "1.41421", True),
    ("rounding_digits", 6, "\\sqrt{2}", "1.41431", False),
    ("rounding_digits", 3, "\\frac{1}{3}", "0.333", True),
    ("rounding_digits", None, "\\frac{1}{3}", "0.333333333333", False),
    ("rounding_digits", None, "\\sqrt{2}", "1.4142135623730951", False),
    ("relative_tolerance", 0.0, "3.14", "3.1400001", False),
    ("relative_tolerance", 1e-3, "3.14", "3.143", True),
    ("relative_tolerance", 1e-3, "3.14", "3.144", False),
    ("relative_tolerance", 1e-3, "\\pi", "3.143", True),
    ("relative_tolerance", 1e-3, "\\pi", "3.145", False),
    ("list_order", "any", "10, 4, -2", "4, 10, -2", True),
    ("list_order", "same", "10, 4, -2", "4, 10, -2", False),
    ("list_order", "same", "10, 4, -2", "10, 4, -2.0", True),
    ("list_order", "same", "\\{1, 2\\}", "\\{2, 1\\}", True),
    ("brackets", "same", "\\{1,2\\}", "(1,2)", False),
    ("brackets", "any", "\\{1,2\\}", "(1,2)", True),
    ("brackets", "any", "[0,1)", "(0,1)", False),
    ("intervals", "any", "[1,2]", "1 \\le x \\le 2", True),
    ("intervals", "same", "[1,2]", "1 \\le x \\le 2", False),
    ("intervals", "same", "1 \\le x \\le 2", "2 \\ge x \\ge 1", True),
    ("unreduced", "accept", "\\frac{1}{2}", "\\frac{2}{4}", True),
    ("unreduced", "refuse", "\\frac{1}{2}", "\\frac{2}{4}", False),
    ("unreduced", "refuse", "\\frac{1}{2}", "0.5", True),
    ("unreduced", "refuse", "3", "\\frac{3}{1}", False),
    ("unevaluated", "accept", "120", "5!", True),
    ("unevaluated", "refuse", "120", "5!", False),
    ("unevaluated", "refuse", "5!", "120", True),
    ("units", "optional", "5\\text{ cm}", "5", True),
    ("units", "optional", "5\\text{ cm}", "5\\text{ m}", False),
    ("units", "required", "5\\text{ cm}", "5", False),
    ("units", "required", "5\\text{ cm}", "5.0 centimeters", True),
    ("units", "ignored", "5\\text{ cm}", "5\\text{ m}", True),
    ("equations", "value", "x = 2", "2", True),
    ("equations", "same", "x = 2", "2", False),
    ("equations", "same", "x = 2", "x = \\frac{4}{2}", True),
    ("case", "ignore", "Monday", "monday", True),
    ("case", "exact", "Monday", "monday", False),
    ("decimal_comma", False, "1000.99", "1000,99", False),
    ("decimal_comma", True, "1000.99", "1000,99", True),
]

BOXES = [
    ("list", "\\boxed{2} and \\boxed{5}", "2, 5"),
    ("list", "\\boxed{2}, so in the end \\boxed{5}", "5"),
    ("list", "\\boxed{5}. So it is \\boxed{5}", "5"),
    ("last", "\\boxed{2} and \\boxed{5}", "5"),
    ("refuse", "\\boxed{2} and \\boxed{5}", None),
    ("refuse", "\\boxed{5} and \\boxed{5}", "5"),
]


@pytest.mark.parametrize(("option", "choice", "gold", "answer", "expected"), TABLE)
def test_policy(option, choice, gold, answer, expected):
    verdict = verify("math", gold, answer, AnswerPolicy.model_validate({option: choice}))
    assert verdict.outcome is (Outcome.CORRECT if expected else Outcome.WRONG)


@pytest.mark.parametrize(("choice", "text", "answer"), BOXES)
def test_several_boxes(choice, text, answer):
    assert extract(text, False, "boxed", choice).answer == answer


def test_every_option_has_its_rows_here():
    tested = {option for option, *_ in TABLE}
    assert tested | {"several_boxes"} == set(AnswerPolicy.model_fields)

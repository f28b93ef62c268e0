import gc
import json
import time

import pytest

from rewards.checkers import gold_fault, verify
from rewards.records import Outcome

RIGHT, WRONG, BAD, GOLD = Outcome.CORRECT, Outcome.WRONG, Outcome.MALFORMED, Outcome.GOLD_UNUSABLE

INTEGER = [
    ("71", "71", RIGHT, "same"),
    ("71", "+71", RIGHT, "plus sign"),
    ("71", "71.", RIGHT, "trailing stop"),
    ("71", "71.00", RIGHT, "decimals"),
    ("1234", "1,234", RIGHT, "thousands"),
    ("1,234", "1234", RIGHT, "thousands in the gold"),
    ("71", "$71$", RIGHT, "math delimiters"),
    ("71", "\\(71\\)", RIGHT, "math delimiters"),
    ("-5", "\u22125", RIGHT, "Unicode minus"),
    ("0.5", ".5", RIGHT, "no leading zero"),
    ("71", "\uff17\uff11", RIGHT, "full width"),
    ("71", "72", WRONG, "other number"),
    ("71", "71.0000001", WRONG, "near"),
    ("71", "7 1", WRONG, "a blank inside"),
    ("71", "1,23,4", WRONG, "bad grouping"),
    ("71", "71 apples", WRONG, "words"),
    ("71", "= 71", WRONG, "equation"),
    ("71", "23 + 48 = 71", WRONG, "equation"),
    ("71", "70, 71, 72", WRONG, "list"),
    ("71", "71 or 72", WRONG, "choice"),
    ("71", "\u06f7\u06f1", WRONG, "Persian digits"),
    ("71", "0x47", WRONG, "hexadecimal"),
    ("71", "1e400000000", WRONG, "exponent"),
    ("71", "9" * 1999, WRONG, "long number"),
    ("71", "9" * 100_000, BAD, "longer than any answer"),
    ("71", ".", WRONG, "no digits"),
    ("seventy", "70", GOLD, "gold is no number"),
    ("", "70", GOLD, "empty gold"),
]

PUZZLE = json.dumps({"numbers": [19, 36, 55, 7], "target": 65})
COUNTDOWN = [
    (PUZZLE, "55 + 36 - 7 - 19", RIGHT, "plain"),
    (PUZZLE, "(55+36)-(7+19)", RIGHT, "brackets"),
    (PUZZLE, "55 + 36 − 7 − 19 = 65", RIGHT, "stated result, Unicode minus"),  # noqa: RUF001
    (PUZZLE, "55 + 36 - 7 - 19 = 66", WRONG, "false result"),
    (PUZZLE, "55 + 36 - 7", WRONG, "one number unused"),
    (PUZZLE, "55 + 36 - 7 - 19 + 7 - 7", WRONG, "one number used again"),
    (PUZZLE, "65", WRONG, "the target itself"),
    (PUZZLE, "60 + 5", WRONG, "other numbers"),
    (PUZZLE, "55 + 36 - 7 - 1 9", BAD, "a blank inside a number"),
    (PUZZLE, "5536 - 7 - 19", WRONG, "numbers joined"),
    (PUZZLE, "-7 + 55 + 36 - 19", BAD, "sign in front"),
    (PUZZLE, "55 + -19 + 36 - 7", BAD, "sign in front"),
    (PUZZLE, "55.0 + 36 - 7 - 19", BAD, "decimals"),
    (PUZZLE, "55 + 36 - 7 - 19 = 65 = 65", BAD, "two results"),
    (PUZZLE, "= 65", BAD, "no expression"),
    (PUZZLE, "", BAD, "empty"),
    (PUZZLE, "(55 + 36", BAD, "open bracket"),
    (PUZZLE, "the answer is 55 + 36 - 7 - 19", BAD, "words"),
    (PUZZLE, "55 + 36 - 7 - 19 or 1", BAD, "words"),
    (PUZZLE, "44**19**35", BAD, "power"),
    (PUZZLE, "9**9**9", BAD, "power"),
    (PUZZLE, "19 ^ 36", BAD, "power"),
    (PUZZLE, "(" * 150 + "1" + ")" * 150, BAD, "deep brackets"),
    (PUZZLE, "1+" * 50_000 + "1", BAD, "long"),
    (PUZZLE, "__import__('os').system('touch pwned.marker')", BAD, "code"),
    (PUZZLE, "19(36)", BAD, "implied product"),
    (PUZZLE, "55 / (19 - 19) + 36 + 7", WRONG, "division by zero"),
    ('{"numbers": [2, 4], "target": 8}', "2 × 4", RIGHT, "times sign"),  # noqa: RUF001
    ('{"numbers": [8, 4], "target": 2}', "\\left(8 \\div 4\\right)", RIGHT, "LaTeX"),
    ('{"numbers": [3, 3, 8, 8], "target": 24}', "8 / (3 - 8 / 3)", RIGHT, "exact fractions"),
    ('{"numbers": [5, 5], "target": 10}', "5 + 5", RIGHT, "a number given twice"),
    ('{"numbers": [2, 5], "target": -3}', "2 - 5 = -3", RIGHT, "negative target"),
    ('{"numbers": [], "target": 10}', "10", GOLD, "no numbers"),
    ('{"numbers": [1], "target": "x"}', "1", GOLD, "no target"),
    ("65", "65", GOLD, "not JSON"),
]

PEOPLE = json.dumps({"Amelia": True, "Penelope": False})
KNIGHTS = [
    (PEOPLE, "Amelia is a knight, Penelope is a knave", RIGHT, "plain"),
    (PEOPLE, "penelope is a KNAVE and amelia is a knight.", RIGHT, "order and case"),
    (PEOPLE, "(1) Amelia is a knight\n(2) Penelope is a knave", RIGHT, "numbered"),
    (PEOPLE, "1. Amelia: knight\n2. Penelope: knave", RIGHT, "list"),
    (PEOPLE, "**Amelia** = knight; Penelope = knave", RIGHT, "marked"),
    (PEOPLE, "Amelia is a knave, Penelope is a knave", WRONG, "one wrong"),
    (PEOPLE, "Amelia is a knight", WRONG, "one missing"),
    (PEOPLE, "Amelia is a knight, Penelope is a knave, Amelia is a knave", WRONG, "contradiction"),
    (PEOPLE, "Amelia is a knight, Amelia is a knight, Penelope is a knave", WRONG, "said twice"),
    (PEOPLE, "Amelia is a knight, Penelope is a knave, Bob is a knave", WRONG, "a stranger"),
    (PEOPLE, "Amelia is not a knave, Penelope is a knave", BAD, "negation"),
    (PEOPLE, "Amelia is a knight or a knave, Penelope is a knave", BAD, "both"),
    (PEOPLE, "one of them lies", BAD, "prose"),
    (PEOPLE, "", BAD, "empty"),
    (PEOPLE, "Amelia is a knight, " * 90, WRONG, "long"),
    ("[]", "Amelia is a knight", GOLD, "no object"),
    ('{"Amelia": 1}', "Amelia is a knight", GOLD, "not true or false"),
]

EXACT = [
    ("Paris", " Paris\n", RIGHT, "white space"),
    ("a b", "a\t b", RIGHT, "runs of white space"),
    ("Paris", "paris", WRONG, "case"),
    ("Paris", "Paris, France", WRONG, "more"),
    (" ", "x", GOLD, "empty gold"),
]

MATH = [
    ("\\frac{1}{2}", "0.5", RIGHT, "decimal of a fraction"),
    ("1/3", "0.333333333", RIGHT, "long decimal of an endless fraction"),
    ("1/3", "0.33", WRONG, "short decimal of an endless fraction"),
    ("\\sqrt{8}", "2\\sqrt{2}", RIGHT, "computed"),
    ("2x+3t", "2x+3", WRONG, "a variable dropped"),
    ("42", "4200\\%", WRONG, "whole number in per cent"),
    ("0.6", "60\\%", RIGHT, "per cent"),
    ("12\\text{ apples}", "12\\text{ oranges}", WRONG, "two units"),
    ("12\\text{ apples}", "12", RIGHT, "unit missing"),
    ("x=3", "2x=6", WRONG, "another equation"),
    ("x=3", "3", RIGHT, "the value of the equation"),
    ("42", "1=2=41=42", WRONG, "false chain"),
    ("3x+4y+14=0", "3x-1y+13=0", WRONG, "two lines"),
    ("3x+4y+14=0", "6x+8y=-28", RIGHT, "the same line"),
    ("BAC", "CAB", WRONG, "letters in another order"),
    ("10^{-20}", "0", WRONG, "tiny is not zero"),
    ("(1,2)", "(2,1)", WRONG, "order of a pair"),
    ("3:4", "6:8", RIGHT, "ratio"),
    ("1101_2", "1101_3", WRONG, "bases"),
    ("-i", "\\frac{1}{i}", RIGHT, "complex"),
    ("1", "().__class__.__base__.__subclasses__()", WRONG, "code"),
    ("1", "(" * 200 + "1" + ")" * 200, BAD, "deep brackets"),
    ("1", "9" * 1000, BAD, "digits"),
    ("", "1", GOLD, "empty gold"),
    ("x", "x", RIGHT, "same text"),
]

CHOICE = [
    ("B", "B", RIGHT, "the letter"),
    ("B", "b.", RIGHT, "lower case, stop"),
    ("B", "(B)", RIGHT, "brackets"),
    ("(B)", "\\textbf{(B)}", RIGHT, "LaTeX"),
    ("B", "Option B", RIGHT, "a word in front"),
    ("B", "The answer is (B)", RIGHT, "a sentence in front"),
    ("B", "B. a red one", RIGHT, "the option's words behind"),
    ("B", "C", WRONG, "another letter"),
    ("B", "B or C", BAD, "two letters"),
    ("B", "B or A", BAD, "A is a letter at the end"),
    ("B", "B A", BAD, "A alone"),
    ("B", "B and A or C", BAD, "A in front of a conjunction"),
    ("B", "(B) 7 (C) 8", BAD, "two marked letters"),
    ("B", "Because", BAD, "a word"),
    ("B", "", BAD, "nothing"),
    ('{"letter": "B", "text": "Paris"}', "Paris", RIGHT, "the words"),
    ('{"letter": "B", "text": "Paris"}', "B. Paris", RIGHT, "letter and words"),
    ('{"letter": "B", "text": "Paris"}', "B. Rome", WRONG, "the letter with other words"),
    ('{"letter": "B", "text": "Paris"}', "Rome", BAD, "other words"),
    ("BC", "B", GOLD, "two letters in the gold"),
    ('{"letter": "B"}', "B", GOLD, "no words"),
]

GSM8K = [
    ("so 6 * 12 = 72\n#### 72", "72", RIGHT, "the data set's solution as the gold"),
    ("72", "6 * 12 = 72\n#### 72", RIGHT, "a solution as the answer"),
    ("72", "#### 72", RIGHT, "the line alone"),
    ("#### 1,200", "1200", RIGHT, "thousands"),
    ("72", "71 or 73 #### 72", WRONG, "not on a line of its own"),
    ("72", "#### 72\nor 73", WRONG, "not the last line"),
    ("72", "#### 71\n#### 72", RIGHT, "the last of two"),
    ("72", "#### 72 apples", WRONG, "more than the number"),
    ("#### many", "72", GOLD, "no number"),
]

SEVERAL = [
    ('{"any_of": ["1/2", "half"]}', "0.5", RIGHT, "the first"),
    ('{"any_of": ["1/2", "half"]}', "Half", RIGHT, "the second"),
    (' { "any_of": ["1/2", "half"] }', "0.5", RIGHT, "blanks in the JSON"),
    ('{"any_of": ["1/2", "half"]}', "0.6", WRONG, "neither"),
    ('{"any_of": ["", "2"]}', "2", RIGHT, "one that cannot be used beside one that is met"),
    ('{"any_of": []}', "2", GOLD, "none"),
    ('{"any_of": "2"}', "2", GOLD, "no list"),
    ('{"any_of": ["2"', "2", GOLD, "no JSON"),
]

TABLES = {"integer": INTEGER, "countdown": COUNTDOWN, "knights_knaves": KNIGHTS, "exact": EXACT, "math": MATH}
TABLES |= {"multiple_choice": CHOICE, "gsm8k": GSM8K}
ROWS = [(name, *row) for name, table in TABLES.items() for row in table]
ROWS += [("math", *row) for row in SEVERAL]


@pytest.fixture
def uncollected():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(("checker", "gold", "answer", "expected", "reason"), ROWS)
def test_table(checker, gold, answer, expected, reason, uncollected):
    """A verdict's own work is bounded: neither what else the machine does nor what other tests left to collect."""
    start = time.thread_time()
    assert verify(checker, gold, answer).outcome is expected, reason
    if checker != "math":
        assert time.thread_time() - start < 0.2


@pytest.mark.parametrize(("checker", "table"), TABLES.items())
def test_gold_check_agrees_with_the_table(checker, table):
    for gold, _, expected, _ in table:
        assert (gold_fault(checker, gold) is not None) is (expected is GOLD), gold


def test_case_is_an_option_of_exact():
    assert verify("exact_ignore_case", "Paris", "PARIS").outcome is RIGHT


def test_unknown_checker_is_refused_with_advice():
    with pytest.raises(ValueError, match="checker='maths': no such checker; did you mean 'math'"):
        verify("maths", "1", "1")


def test_symbolic_parser_never_evaluates_text():
    from sympy.parsing.sympy_parser import parse_expr

    from rewards.checkers import symbolic

    symbolic.warm_up()
    with pytest.raises(ValueError, match="never evaluated"):
        parse_expr("().__class__")
    assert verify("math", "1 + x", "x + 1").outcome is RIGHT


@pytest.mark.parametrize("gold", ["\\frac{1}{", "}{", "x^{", "1 +", "2 + + * 3", "(("])
def test_golds_that_cannot_be_parsed_are_found(gold):
    assert "cannot be parsed" in gold_fault("math", gold)


def test_a_reference_that_is_met_comes_before_one_that_cannot_be_computed():
    """The second is a bomb: looked at, it would not come back."""
    assert verify("math", json.dumps({"any_of": ["\\frac{2}{4}", "9!!!!!!"]}), "0.5").outcome is RIGHT


@pytest.mark.parametrize(
    "words", ["squared", "factorial", "dozen", "thirds", "hundredths", "point five", "negative", "ten", "is not it"]
)
def test_words_that_change_a_number_are_no_unit(words):
    assert verify("math", "7", f"7 {words}").outcome is WRONG
    assert verify("math", "7", f"7\\text{{ {words}}}").outcome is WRONG


@pytest.mark.parametrize(
    "text", ["\\$" * 999 + "5", "a" * 1999 + "!", "\\sqrt" * 300, "(x)" * 600, "1 " * 900, "a b " * 450]
)
def test_long_texts_come_back_at_once(text):
    """As gold and as answer: nothing in front of the parser may take more than linear time, or recurse."""
    start = time.perf_counter()
    verify("math", "5", text)
    verify("math", text, "5")
    assert time.perf_counter() - start < 5

import pytest

from rewards.format import is_well_formed, partial_credit
from rewards.types import Response

GOOD = "<think>a</think><answer>b</answer>"
ROWS = [
    (GOOD, False, True, "well formed"),
    (GOOD + "\n", False, True, "trailing newline"),
    ("<think>\r\na\r\n</think>\r\n<answer>b</answer>\r\n", False, True, "CRLF"),
    ("<think>a</think>  \n <answer>b</answer>", False, True, "spaces between the blocks"),
    ("a</think><answer>b</answer>", True, True, "the template opened the thinking"),
    (GOOD, True, False, "opened twice"),
    ("a</think><answer>b</answer>", False, False, "never opened"),
    (GOOD + "!", False, False, "something after the answer"),
    (GOOD + "<think>", False, False, "a tag after the answer"),
    ("Sure. " + GOOD, False, False, "prose before"),
    ("<think>a</think> so <answer>b</answer>", False, False, "prose between"),
    (f"```\n{GOOD}\n```", False, False, "fenced"),
    ("<think> </think><answer>b</answer>", False, False, "empty thinking"),
    ("<think>a</think><answer>\n</answer>", False, False, "empty answer"),
    ("</think><answer>b</answer>", True, False, "empty thinking after an opened tag"),
    ("<think>a<think></think><answer>b</answer>", False, False, "two <think>"),
    ("<think>a</think></think><answer>b</answer>", False, False, "two </think>"),
    (GOOD + "<answer>c</answer>", False, False, "two answer blocks"),
    ("<think><answer>b</answer></think>", False, False, "answer inside the thinking"),
    ("<think><answer>c</answer></think><answer>b</answer>", False, False, "one inside, one outside"),
    ("<think><think>a</think></think><answer>b</answer>", False, False, "nested"),
    ("<answer>b</answer><think>a</think>", False, False, "wrong order"),
    ("<think>a</think></answer>b<answer>", False, False, "closing before opening"),
    ("", False, False, "nothing"),
]


@pytest.mark.parametrize(("text", "opens_think", "expected", "reason"), ROWS, ids=[row[3] for row in ROWS])
def test_strict_form(text, opens_think, expected, reason):
    assert is_well_formed(Response(text, 1, False), opens_think, "tags") is expected


def test_cut_off_is_never_well_formed():
    assert not is_well_formed(Response(GOOD, 1, True), False, "tags")
    assert not is_well_formed(Response("\\boxed{1}", 1, True), False, "boxed")


@pytest.mark.parametrize(
    ("text", "opens_think", "expected"),
    [
        ("so \\boxed{1}", False, True),
        ("a</think> so \\boxed{\\frac{1}{2}}", True, True),
        ("\\boxed{1}", True, False),
        ("\\boxed{1} \\boxed{2}", False, False),
        ("\\boxed{}", False, False),
        ("\\boxed{1", False, False),
    ],
)
def test_boxed_form(text, opens_think, expected):
    assert is_well_formed(Response(text, 1, False), opens_think, "boxed") is expected


@pytest.mark.parametrize(
    ("text", "opens_think", "expected"),
    [
        (GOOD, False, 1.0),
        (GOOD + " bye", False, 0.8),
        ("<think>a</think>", False, 0.4),
        ("<think>a</think><answer>1</answer><answer>2</answer>", False, 0.4),
        ("a</think><answer>", True, 0.5),
        ("nothing", False, 0.0),
    ],
)
def test_partial_credit(text, opens_think, expected):
    assert partial_credit(Response(text, 1, False), opens_think) == pytest.approx(expected)

import time

import pytest

from rewards.parts.format import format_reward, is_well_formed, partial_credit
from rewards.parts.options import FormatOptions
from rewards.records import Response, ScoreRequest

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
    (GOOD + "\r\n\r\n", False, True, "CRLF at the end"),
    ("\n " + GOOD, False, True, "white space before"),
    ("<think>\n\na\n\n</think>\n\n\t<answer>\n b \n</answer>\n\n", False, True, "blank lines everywhere"),
    ("\r\na\r\n</think>\r\n<answer>b</answer>", True, True, "CRLF after an opened tag"),
    ("<think>if a < b and b > c: <b>x</b></think><answer>1 < 2</answer>", False, True, "other signs and tags inside"),
    ("<think>```\nx\n```</think><answer>```b```</answer>", False, True, "fences inside the blocks"),
    (GOOD + " \u200b", False, False, "an invisible character after the answer"),
    ("\ufeff" + GOOD, False, False, "a byte-order mark before"),
    (GOOD + "\n</answer>", False, False, "two </answer>"),
    ("<answer>" + GOOD, False, False, "two <answer>"),
    (GOOD + GOOD, False, False, "everything twice"),
    (GOOD + "</think>", False, False, "a closing tag after the answer"),
    ("Sure. a</think><answer>b</answer> ok", True, False, "prose after, opened tag"),
    ("<think>a</think>\n```\n<answer>b</answer>\n```", False, False, "only the answer fenced"),
    ("<think>a ```</think><answer>b``` c</answer>", False, False, "a fence around the tags between"),
    ("<think>\u200b\u2060</think><answer>b</answer>", False, False, "thinking that cannot be seen"),
    ("<think>a</think><answer>\u200b</answer>", False, False, "an answer that cannot be seen"),
    ("<think>a<answer>b</think></answer>", False, False, "crossed"),
    ("<think>a<answer>b</answer></think>", False, False, "answer nested in the thinking"),
    ("<answer><think>a</think>b</answer>", False, False, "thinking nested in the answer"),
    ("<answer><answer>b</answer></answer>", False, False, "answers nested"),
    ("<think>a</think><answer>b", False, False, "answer never closed"),
    ("<think>a</think><answer>b<answer>c</answer>", False, False, "two <answer>, one </answer>"),
    ("<think>a <answer></think><answer>b</answer>", False, False, "an opening answer tag in the thinking"),
    ("<think>a", False, False, "thinking never closed"),
    ("<think>a</think>", False, False, "thinking alone"),
    ("<answer>b</answer>", False, False, "answer alone"),
    ("<answer>b</answer>", True, False, "answer alone after an opened tag"),
    ("<Think>a</Think><Answer>b</Answer>", False, False, "capitals"),
    ("< think>a</think><answer>b</answer>", False, False, "a blank in a tag"),
    ("&lt;think&gt;a</think><answer>b</answer>", False, False, "escaped"),
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
        ("\\boxed{ \u200b }", False, False),
        ("\\boxed{\\boxed{1}}", False, True),
        ("<think>a</think>\\boxed{1}", False, True),
        ("\r\n<think>a</think>\r\n\\fbox{1}.\r\n", False, True),
        ("So <think>a</think>\\boxed{1}", False, False),
        ("<think> </think>\\boxed{1}", False, False),
        ("<think>a</think>\\boxed{1}</think>", False, False),
        ("<think>a<think>b</think>\\boxed{1}", False, False),
        ("<think>\\boxed{1}</think> so", False, False),
        ("<think>\\boxed{2}</think>\\boxed{1}", False, True),
        ("<think>a</think>\\boxed{1}", True, False),
        ("a</think>\\boxed{1}", False, False),
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
        ("", True, 0.0),
        ("a</think><answer>b</answer>", True, 1.0),
        ("a</think><answer>b</answer>!", True, 0.75),
        ("</answer><answer></think><think>", False, 0.2),
        ("<think></think><answer></answer>", False, 0.8),
        ("<think>a</think></think><answer>b</answer>", False, 0.6),
    ],
)
def test_partial_credit(text, opens_think, expected):
    assert partial_credit(Response(text, 1, False), opens_think) == pytest.approx(expected)


def test_partial_is_an_option_of_tagged_answers_only():
    responses = (Response("<think>a</think>\\boxed{1} \\boxed{2}", 1, False), Response(GOOD, 1, False))
    for style, partial, expected in [
        ("tags", False, [0.0, 1.0]),
        ("tags", True, [0.4, 1.0]),
        ("boxed", False, [0.0, 0.0]),
        ("boxed", True, [0.0, 0.0]),
    ]:
        request = ScoreRequest("t/0", "", "", "exact", responses, answer_style=style)
        assert format_reward(request, FormatOptions(partial=partial)) == pytest.approx(expected)


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<answer>", "```", "{", "\\boxed{", "\u200b", " "])
@pytest.mark.parametrize("style", ["tags", "boxed"])
def test_hostile_texts_take_linear_time(piece, style):
    start = time.perf_counter()
    is_well_formed(Response(piece * 200_000, 1, False), False, style)
    is_well_formed(Response(piece * 200_000 + "</think><answer>b</answer>", 1, False), True, style)
    assert time.perf_counter() - start < 2.0

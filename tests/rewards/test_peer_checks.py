"""What the suites of other trainers hold for the published rewards, re-stated here from the formulas.

Each number is worked out beside it. `DIFFERENT` lists where we differ on purpose, each row with the reason, what the
peer pays and what we pay; everything else here is agreed by both.
"""

import json
import math

import pytest
from scoring import checked, request_of

from rewards.answers.extract import extract
from rewards.checkers import verify
from rewards.parts.builtin import parts_without_worker
from rewards.parts.checked import CheckedResponse
from rewards.parts.format import format_reward, is_well_formed
from rewards.parts.options import FormatOptions, OverlongOptions, RepetitionOptions
from rewards.parts.repetition import repetition_penalty, repetition_reward
from rewards.records import Outcome, Response, ScoreRequest
from rewards.spec import RewardSpec

RIGHT, WRONG = Outcome.CORRECT, Outcome.WRONG
PEERS_COSINE = {"r_correct_0": 1.0, "r_correct_max": 0.5, "r_wrong_0": -1.0, "r_wrong_max": -0.5, "exceed": None}
"""The defaults of TRL and open-r1."""


def parts(name, lengths, outcomes, step=0, **options):
    found = checked(lengths, outcomes)
    return list(parts_without_worker(RewardSpec(name=name, options=options), request_of(found, step=step), found))


def cosine(lengths, outcome, **options):
    return parts("cosine", lengths, [outcome] * len(lengths), **{**PEERS_COSINE, "max_tokens": 60, **options})


def well_formed(text, style="tags", opens_think=False, truncated=False):
    return is_well_formed(Response(text, 1, truncated), opens_think, style)


def verdict(checker, gold, text):
    """The outcome of a whole tagged completion."""
    found = extract(text, False, "tags")
    return found.outcome or verify(checker, gold, found.answer).outcome


# Cosine (arXiv 2502.03373; TRL, open-r1, ms-swift). cos 60° = 1/2 and cos 120° = -1/2, so at a third of the length
# 3/4 of the way is left, and at two thirds 1/4.


def test_cosine_at_thirds():
    assert cosine([20, 40], RIGHT) == pytest.approx([0.5 + 0.5 * 3 / 4, 0.5 + 0.5 * 1 / 4])
    assert cosine([20, 40], WRONG) == pytest.approx([-0.5 - 0.5 * 3 / 4, -0.5 - 0.5 * 1 / 4])


def test_cosine_at_the_ends_and_in_the_middle():
    assert cosine([0, 30, 60], RIGHT) == pytest.approx([1.0, 0.75, 0.5])
    assert cosine([0, 30, 60], WRONG) == pytest.approx([-1.0, -0.75, -0.5])


def test_cosine_stays_at_its_end_beyond_the_longest():
    """At 61, 90 and 120 tokens a cosine that went on would have turned back, to the start again at 120."""
    assert cosine([61, 90, 120], RIGHT) == pytest.approx([0.5] * 3)
    assert cosine([61, 90, 120], WRONG) == pytest.approx([-0.5] * 3)


def test_cosine_prefers_short_right_and_long_wrong_answers():
    short, long = cosine([12, 48], RIGHT)
    assert short > long
    short, long = cosine([12, 48], WRONG)
    assert short < long


def test_cosine_with_other_ends():
    """Half-way between 3 and -1."""
    assert cosine([30], RIGHT, r_correct_0=3.0, r_correct_max=-1.0) == pytest.approx([1.0])


def test_cosine_of_the_papers_code():
    """Its ends are 2 and 1, -10 and 0; what exceeds gets -10. 7168 is the middle of its 14 336 tokens."""
    constants = {"max_tokens": 14_336}
    assert parts("cosine", [7168, 7168], [RIGHT, WRONG], **constants) == pytest.approx([1.5, -5.0])
    assert parts("cosine", [14_336, 14_336], [RIGHT, WRONG], **constants) == [-10.0, -10.0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("correctness", {"wrong": -1.0}),
        ("length", {}),
        ("cosine", {"max_tokens": 10}),
        ("l1_exact", {"target_tokens": 5}),
        ("l1_max", {"target_tokens": 5}),
        ("abstention", {}),
    ],
)
def test_a_gold_that_cannot_be_read_is_skipped(name, options):
    assert parts(name, [3, 9], [Outcome.GOLD_UNUSABLE] * 2, **options) == [None, None]


# Kimi k1.5's length reward (arXiv 2501.12599, section 2.3.3; open-r1's len_reward).


def test_kimi_right_answers():
    """40 is the shortest, 80 the longest: λ = 0.5 - (n - 40) / 40."""
    assert parts("length", [40, 50, 60, 80], [RIGHT] * 4) == pytest.approx([0.5, 0.25, 0.0, -0.5])


def test_kimi_wrong_answers_are_never_paid():
    assert parts("length", [40, 50, 60, 70, 80], [WRONG] * 5) == pytest.approx([0.0, 0.0, 0.0, -0.25, -0.5])


def test_kimi_mixed_group_shares_its_ends():
    """The wrong answer of 20 is the shortest, so the right one of 60 is half-way to 100 and gets 0."""
    assert parts("length", [20, 60, 100], [WRONG, RIGHT, RIGHT]) == pytest.approx([0.0, 0.0, -0.5])


def test_kimi_equal_lengths():
    assert parts("length", [33, 33], [RIGHT, WRONG]) == [0.0, 0.0]
    assert parts("length", [33], [WRONG]) == [0.0]


# DAPO's soft overlong punishment (arXiv 2503.14476, equation 13; TRL, verl, Trinity). 500 tokens, the last 200 a ramp.


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (299, 0.0),
        (300, 0.0),
        (301, -1 / 200),
        (400, -100 / 200),
        (499, -199 / 200),
        (500, -1.0),
        (501, -1.0),
        (5000, -1.0),
    ],
)
@pytest.mark.parametrize("outcome", [RIGHT, WRONG, Outcome.GOLD_UNUSABLE])
def test_overlong(length, expected, outcome):
    assert parts("overlong", [length], [outcome], max_tokens=500, cache_tokens=200) == pytest.approx([expected])


# L1 (arXiv 2503.04697).


def test_l1_exact():
    """1 - 0.0003 · 200 and 0 - 0.0003 · 200."""
    assert parts("l1_exact", [800, 1200], [RIGHT, RIGHT], target_tokens=1000) == pytest.approx([0.94, 0.94])
    assert parts("l1_exact", [800, 1200], [WRONG, WRONG], target_tokens=1000) == pytest.approx([-0.06, -0.06])


def test_l1_max():
    """The clip's ends lie 0.5 / 0.0003 = 1666.7 tokens to either side of 2000: 1 before 334 and 0 after 3666."""
    lengths = [333, 334, 2000, 3666, 3667]
    expected = [1.0, 0.0003 * 1666 + 0.5, 0.5, -0.0003 * 1666 + 0.5, 0.0]
    assert parts("l1_max", lengths, [RIGHT] * 5, target_tokens=2000) == pytest.approx(expected)
    assert parts("l1_max", lengths, [WRONG] * 5, target_tokens=2000) == [0.0] * 5


# Repetition (arXiv 2502.03373, appendix C.2; open-r1, TRL, ms-swift).

REPETITION = [
    ("", 2, -1.0, 0.0, "empty"),
    ("tick", 3, -1.0, 0.0, "1 word for a size of 3"),
    ("tick tock", 3, -1.0, 0.0, "2 words for a size of 3"),
    ("tick tock tack", 3, -1.0, 0.0, "exactly one n-gram"),
    ("red green blue white", 2, -1.0, 0.0, "3 of 3 differ"),
    ("hm hm hm hm hm hm", 2, -1.0, -(1 - 1 / 5), "1 of 5 differs"),
    ("hm hm hm hm hm", 3, -1.0, -(1 - 1 / 3), "1 of 3 differs"),
    ("up and up and down", 2, -1.0, -(1 - 3 / 4), "up-and and-up up-and and-down: 3 of 4"),
    ("up and up and down", 2, -2.0, -2 * (1 - 3 / 4), "twice the penalty"),
    ("up and up and down", 3, -0.5, 0.0, "3 of 3 differ"),
    ("x y z x y z", 3, -1.0, -(1 - 3 / 4), "xyz yzx zxy xyz: 3 of 4"),
    ("x y z x y", 3, -1.0, 0.0, "xyz yzx zxy"),
    ("Up AND uP and down", 2, -1.0, -(1 - 3 / 4), "case does not matter"),
]


@pytest.mark.parametrize(("text", "size", "worst", "expected", "reason"), REPETITION, ids=[r[4] for r in REPETITION])
def test_repetition(text, size, worst, expected, reason):
    options = RepetitionOptions(ngram_size=size, max_penalty=worst)
    assert repetition_penalty(text, options) == pytest.approx(expected)


def test_repetition_of_several_completions_and_bounds():
    texts = ["one two three four", "no no no no"]
    request = ScoreRequest("t/0", "", "", "exact", tuple(Response(text, 4, False) for text in texts))
    assert repetition_reward(request, RepetitionOptions(ngram_size=3, max_penalty=-0.5)) == pytest.approx([0.0, -0.25])
    with pytest.raises(ValueError, match="max_penalty"):
        RepetitionOptions(max_penalty=0.1)


# Format (open-r1, TinyZero, Logic-RL: both blocks, each tag once, in order).

FORMAT = [
    ("<think>sum</think><answer>9</answer>", True, "one line"),
    ("<think>\nsum\n</think>\n<answer>\n9\n</answer>", True, "a line for each tag"),
    ("<think>\n1. a cat\n2. a dog\n\nSo two.\n</think>\n<answer>2</answer>", True, "several lines of thinking"),
    ("<think>a <b>bold</b> thought</think><answer>2</answer>", True, "other tags in the thinking"),
    ("<think>sum</think>", False, "no answer"),
    ("<answer>9</answer>", False, "no thinking"),
    ("sum is 9", False, "no tags"),
    ("<think>sum</think><answer>9", False, "answer not closed"),
    ("<think>sum<answer>9</answer>", False, "thinking not closed"),
    ("<think>sum</answer><answer>9</think>", False, "closed by each other's tags"),
    ("<answer>9</answer><think>sum</think>", False, "answer first"),
    ("<think>sum<think>sum</think></think><answer>9</answer>", False, "thinking twice, nested"),
    ("<think>a</think> so <think>b</think><answer>9</answer>", False, "thinking twice, in a row"),
    ("We<think>sum</think><answer>9</answer>", False, "thinking not at the start"),
]


@pytest.mark.parametrize(("text", "expected", "reason"), FORMAT, ids=[row[2] for row in FORMAT])
def test_format(text, expected, reason):
    assert well_formed(text) is expected


def test_tag_counts():
    """Of four tags 4, 2, 1 and 0 in their places, once each, are worth a fifth each; the last fifth is the form."""
    texts = [f"{FORMAT[0][0]} bye", "<think>sum</think>9", "sum</think>9", "sum is 9", FORMAT[0][0]]
    request = ScoreRequest("t/0", "", "", "exact", tuple(Response(text, 4, False) for text in texts))
    assert format_reward(request, FormatOptions(partial=True)) == pytest.approx([0.8, 0.4, 0.2, 0.0, 1.0])


# Reasoning and answer (TRL's reasoning_accuracy_reward): only what follows the thinking is an answer.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>hard</think> So \\boxed{\\frac{5}{8}}", "\\frac{5}{8}"),
        ("hard</think> So \\boxed{\\frac{5}{8}}", "\\frac{5}{8}"),
        ("<think>It is \\boxed{8}</think> I am done.", None),
        ("<think>It is \\boxed{8}</think> No: \\boxed{9}.", "9"),
        ("<think>It is \\boxed{8}", None),
    ],
)
def test_only_what_follows_the_thinking_is_an_answer(text, expected):
    assert extract(text, False, "boxed").answer == expected


# Accuracy (TRL, open-r1).


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("\\frac{27}{250}", "\\frac{27}{250}", RIGHT),
        ("27/250", "\\frac{27}{250}", RIGHT),
        ("\\frac{27}{250}", "\\frac{26}{250}", WRONG),
        ("8", "4", WRONG),
    ],
)
def test_accuracy(gold, answer, expected):
    assert verify("math", gold, answer).outcome is expected


# Countdown (TinyZero): all numbers, each once, and the target reached.

PUZZLE = json.dumps({"numbers": [3, 8, 25, 50], "target": 99})  # 50 + 25 + 8 · 3 = 99
COUNTDOWN = [
    ("50 + 25 + 8 * 3", RIGHT, "right"),
    ("(50 + 25) + (3 * 8)", RIGHT, "other order, brackets"),
    ("50 + 25 + 8 - 3", WRONG, "80"),
    ("50 + 25 + 24", WRONG, "a number that was not given"),
    ("50 + 50 - 1", WRONG, "a number twice, others not at all"),
    ("99", WRONG, "the target alone"),
    ("50 + 25 + 8 * 3 + 0", WRONG, "one number too many"),
    ("50 + 25 + 8 * three", Outcome.MALFORMED, "letters"),
    ("50 + 25 + 8 ** 3", Outcome.MALFORMED, "a power"),
    ("50 / (25 - 8 - 3 - 14)", WRONG, "a division by zero"),
    ("__import__('os').getcwd()", Outcome.MALFORMED, "a program"),
]


@pytest.mark.parametrize(("answer", "expected", "reason"), COUNTDOWN, ids=[row[2] for row in COUNTDOWN])
def test_countdown(answer, expected, reason):
    assert verdict("countdown", PUZZLE, f"<think>try</think>\n<answer>{answer}</answer>") is expected


def test_countdown_without_an_answer():
    assert verdict("countdown", PUZZLE, "<think>50 + 25 + 8 * 3</think>") is Outcome.NO_ANSWER


# Knights and knaves (Logic-RL): everybody named, everybody right.

PEOPLE = json.dumps({"Ava": True, "Ben": False, "Cleo": False})
KNIGHTS = [
    ("Ava is a knight, Ben is a knave, and Cleo is a knave", RIGHT, "a sentence"),
    ("(1) Ava is a knight\n(2) Ben is a knave\n(3) Cleo is a knave", RIGHT, "numbered lines, as the prompt asks"),
    ("(1) Cleo is a KNAVE (2) ben is a knave (3) Ava is a Knight", RIGHT, "any order, any case"),
    ("(1) Ava is a knight\n(2) Ben is a knight\n(3) Cleo is a knave", WRONG, "one wrong"),
    ("(1) Ava is a knave\n(2) Ben is a knight\n(3) Cleo is a knight", WRONG, "all wrong"),
    ("(1) Ava is a knight\n(2) Ben is a knave", WRONG, "one missing"),
    ("I cannot tell", Outcome.MALFORMED, "no statement"),
]


@pytest.mark.parametrize(("answer", "expected", "reason"), KNIGHTS, ids=[row[2] for row in KNIGHTS])
def test_knights_and_knaves(answer, expected, reason):
    assert verdict("knights_knaves", PEOPLE, f"<think>say</think><answer>{answer}</answer>") is expected


# Where we differ on purpose: (what, peer, peer's value, our value, how ours comes about, why).


def _kimi_by_tokens():
    """Two right answers of 10 and 20 tokens, whose texts are as long as each other."""
    found = [CheckedResponse(Response("x" * 50, length, False), RIGHT) for length in (10, 20)]
    return list(parts_without_worker(RewardSpec(name="length"), request_of(found), found))


def _format(text, **more):
    return lambda: float(well_formed(text, **more))


def _cosine_of_open_r1(length):
    return 0.5 + 0.25 * (1 + math.cos(math.pi * length / 60))


DIFFERENT = [
    ("format: empty thinking", "TRL", 1.0, 0.0, _format("<think></think><answer>9</answer>"),
     "an empty block is the cheapest way to be paid for form"),
    ("format: text instead of an answer block", "TRL", 1.0, 0.0, _format("<think>sum</think>It is 9."),
     "the answer has to be found without guessing; boxed answers have a style of their own"),
    ("format: one line", "open-r1 (later versions)", 0.0, 1.0, _format("<think>sum</think><answer>9</answer>"),
     "line breaks around tags carry nothing"),
    ("format: text after the answer on another line", "open-r1", 1.0, 0.0,
     _format("<think>\nsum\n</think>\n<answer>\n9\n</answer>\nBye"),
     "its pattern has $ match at every line's end; whatever follows the answer is no part of the form"),
    ("format: two answer blocks", "open-r1", 1.0, 0.0,
     _format("<think>\nsum\n</think>\n<answer>\n8\n</answer>\n<answer>\n9\n</answer>"),
     "listing candidates is not answering"),
    ("format: cut off right behind the last tag", "all", 1.0, 0.0, _format(FORMAT[0][0], truncated=True),
     "the model did not stop by itself"),
    ("cosine: beyond the longest", "open-r1", _cosine_of_open_r1(120), 0.5, lambda: cosine([120], RIGHT)[0],
     "an unclamped cosine pays the longest like the shortest"),
    ("cosine: at the longest", "TRL, open-r1", 0.5, -10.0, lambda: parts("cosine", [60], [RIGHT], max_tokens=60)[0],
     "the paper's r_e; set `exceed` to null and the four ends for theirs"),
    ("cosine: the last 16 tokens before the longest", "the paper's code", -10.0,
     1 + (1 + math.cos(math.pi * 90 / 100)) / 2, lambda: parts("cosine", [90], [RIGHT], max_tokens=100)[0],
     "the engine's limit is exact, so no margin is needed"),
    ("cosine, accuracy: gold that cannot be read", "open-r1", 1.0, None,
     lambda: parts("correctness", [5], [Outcome.GOLD_UNUSABLE])[0],
     "paying everybody hides the fault; no opinion, and the row is named at the start"),
    ("length: unit", "open-r1", [0.0, 0.0], [0.5, -0.5], _kimi_by_tokens,
     "characters reward other alphabets; the paper means tokens"),
    ("overlong: beyond the limit", "verl", -1.5, -1.0,
     lambda: parts("overlong", [600], [RIGHT], max_tokens=500, cache_tokens=200)[0],
     "equation 13 ends at -1"),
    ("overlong: no ramp", "TRL", 0.0, "refused", lambda: _refusal(OverlongOptions, max_tokens=500, cache_tokens=0),
     "a ramp of no width is a mistake in the recipe"),
    ("repetition: unit", "TRL (recent)", -1 / 6, -1 / 3, lambda: repetition_penalty("up up up up", RepetitionOptions(
        ngram_size=2, max_penalty=-0.5)), "words need no tokenizer; to it 'up' and ' up' differ: 2 of 3"),
    ("countdown: form without the right number", "TinyZero", 0.1, WRONG, lambda: verdict(
        "countdown", PUZZLE, "<answer>50 + 25</answer>"), "form is another reward, with its own weight"),
    ("countdown: nearly", "TinyZero", 1.0, WRONG, lambda: verify(
        "countdown", json.dumps({"numbers": [1, 1000000], "target": 0}), "1 / 1000000").outcome,
     "it accepts what is within 1e-5; fractions are exact"),
    ("countdown: last line only", "TinyZero", 0.0, RIGHT, lambda: verdict(
        "countdown", PUZZLE, "<think>a</think><answer>50 + 25 + 8 * 3</answer>\n"),
     "a line break after the answer changes nothing"),
    ("knights: a name said twice, differently", "Logic-RL", RIGHT, WRONG, lambda: verify(
        "knights_knaves", PEOPLE,
        "Ava is a knight, Ben is a knave, Cleo is a knave, Ava is a knave").outcome,
     "it reads the first statement; listing both roles is not answering"),
    ("knights: words around it", "Logic-RL", RIGHT, Outcome.MALFORMED, lambda: verify(
        "knights_knaves", PEOPLE, "Ava is a knight, Ben is a knave, Cleo is a knave, or so it seems").outcome,
     "every clause has to say who is what"),
]  # fmt: skip


def _refusal(options, **fields):
    try:
        options(**fields)
    except ValueError:
        return "refused"
    return "accepted"


@pytest.mark.parametrize(
    ("what", "peer", "theirs", "ours", "computed", "why"), DIFFERENT, ids=[f"{row[0]} ({row[1]})" for row in DIFFERENT]
)
def test_where_we_differ_on_purpose(what, peer, theirs, ours, computed, why):
    assert computed() == (pytest.approx(ours) if isinstance(ours, float | list) else ours)
    assert theirs != ours
    assert why

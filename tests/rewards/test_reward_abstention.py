import pytest

from rewards.answers.extract import extract
from rewards.parts.abstention import abstention_reward
from rewards.parts.checked import CheckedResponse
from rewards.parts.options import AbstentionOptions
from rewards.records import Outcome, Response, ScoreRequest

FIVE = {"right": 5.0, "right_with_rubbish": 4.0, "abstained": 3.0, "wrong": 2.0, "wrong_with_rubbish": 1.0}
THOUGHT = "<think>work</think>"


def paid(text, outcome, style="tags", opens_think=False, truncated=False, **options):
    response = Response(text, 10, truncated)
    found = extract(text, opens_think, style)
    request = ScoreRequest("t/0", "", "71", "integer", (response,), opens_think, style)
    one = CheckedResponse(response, found.outcome or outcome, found.answer)
    [reward] = abstention_reward(request, [one], AbstentionOptions(**{**FIVE, **options}))
    return reward


def test_the_order():
    right, wrong = Outcome.CORRECT, Outcome.WRONG
    assert paid(f"{THOUGHT}<answer>71</answer>", right) == 5.0
    assert paid(f"{THOUGHT}<answer>71</answer> Bye!", right) == 4.0
    assert paid(f"{THOUGHT}<answer>I don't know</answer>", wrong) == 3.0
    assert paid(f"{THOUGHT}<answer>70</answer>", wrong) == 2.0
    assert paid(f"{THOUGHT}<answer>70</answer> Bye!", wrong) == 1.0


def test_defaults_keep_the_order():
    options = AbstentionOptions()
    five = [options.right, options.right_with_rubbish, options.abstained, options.wrong, options.wrong_with_rubbish]
    assert five == [1.0, 0.5, 0.0, -0.5, -1.0]


ABSTAINED = [
    ("I don't know", "plain"),
    ("i DON\u2019T know.", "case, curly apostrophe, final stop"),
    ("I don` t  know", "an odd apostrophe and blanks"),
    ("I do not know!", "an exclamation mark"),
    ("Unknown", "one word"),
    ("\\text{I don't know}", "in \\text{}"),
    ("\\boxed{\\text{I don't know.}}", "in a box"),
    ("\u201cI'm not sure\u201d", "in quotes"),
]


@pytest.mark.parametrize(("answer", "reason"), ABSTAINED, ids=[row[1] for row in ABSTAINED])
def test_abstains(answer, reason):
    assert paid(f"{THOUGHT}<answer>{answer}</answer>", Outcome.WRONG) == 3.0


def test_abstains_in_any_form():
    assert paid(f"{THOUGHT} I don't know.", Outcome.WRONG) == 3.0
    assert paid("I don't know", Outcome.WRONG) == 3.0
    assert paid("\\boxed{unknown}", Outcome.WRONG, style="boxed") == 3.0
    assert paid("a</think>I don't know", Outcome.WRONG, opens_think=True) == 3.0
    assert paid(f"{THOUGHT}<answer>I don't know</answer>", Outcome.MALFORMED) == 3.0


NOT_ABSTAINED = [
    (f"{THOUGHT}<answer>I don't know, maybe 70</answer>", 2.0, "not the whole answer"),
    (f"{THOUGHT}<answer>70</answer> I don't know", 1.0, "another answer beside it"),
    ("<think>I don't know", 1.0, "still thinking"),
    ("<think>I don't know</think><answer>70</answer>", 2.0, "only in the thinking"),
    (f"{THOUGHT}<answer>unknown</answer><answer>70</answer>", 1.0, "two answers"),
    (f"{THOUGHT}<answer></answer>", 1.0, "empty"),
    ("", 1.0, "nothing"),
    (f"{THOUGHT}<answer>{'unknown' * 100}</answer>", 2.0, "long"),
]


@pytest.mark.parametrize(("text", "expected", "reason"), NOT_ABSTAINED, ids=[row[2] for row in NOT_ABSTAINED])
def test_does_not_abstain(text, expected, reason):
    assert paid(text, Outcome.WRONG) == expected


@pytest.mark.parametrize("outcome", [Outcome.WRONG, Outcome.TIMED_OUT, Outcome.CRASHED, Outcome.MALFORMED])
def test_all_other_outcomes_are_wrong(outcome):
    assert paid(f"{THOUGHT}<answer>70</answer>", outcome) == 2.0
    assert paid(f"{THOUGHT}<answer>70</answer>", outcome, truncated=True) == 1.0


def test_a_gold_of_unknown_is_answered_right_by_it():
    assert paid(f"{THOUGHT}<answer>unknown</answer>", Outcome.CORRECT) == 5.0


def test_phrases_are_an_option():
    text = f"{THOUGHT}<answer>Keine Ahnung.</answer>"
    assert paid(text, Outcome.WRONG) == 2.0
    assert paid(text, Outcome.WRONG, phrases=("keine Ahnung",)) == 3.0

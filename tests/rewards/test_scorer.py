import math
import signal
import time

import pytest
from scoring import request, tagged

from rewards.answer_policy import DEFAULT_POLICY, AnswerPolicy
from rewards.records import Outcome
from rewards.scorer import Scorer
from rewards.spec import RewardSpec


def spec(name, weight=1.0, **options):
    return RewardSpec(name=name, weight=weight, options=options)


def test_weighted_sum_of_the_parts():
    specs = [
        spec("correctness", 2.0, wrong=-1.0),
        spec("format", 0.5),
        spec("length", 1.0),
        spec("overlong", 1.0, max_tokens=40, cache_tokens=20),
        spec("language", 0.1),
    ]
    group = request(tagged("71"), "I say <answer>70</answer>", tagged("71."), "no")
    with Scorer(specs) as scorer:
        scorer.submit(group)
        [scores] = scorer.collect()
    assert [score.outcome for score in scores] == ["correct", "wrong", "correct", "no_answer"]
    assert [score.answer for score in scores] == ["71", "70", "71.", None]
    assert scores[0].parts == {
        "correctness": 1.0, "format": 1.0, "length": 0.5, "overlong": 0.0, "language": 1.0
    }  # fmt: skip
    assert scores[0].reward == pytest.approx(2.0 + 0.5 + 0.5 + 0.1)
    assert scores[3].parts["length"] == -0.5
    assert scores[3].parts["overlong"] == -1.0
    assert scores[3].reward == pytest.approx(-2.0 - 0.5 - 1.0 + 0.1)


def test_answers_are_verified_without_the_correctness_reward():
    with Scorer([spec("format")]) as scorer:
        scorer.submit(request(tagged("71")))
        [[score]] = scorer.collect()
    assert score.outcome is Outcome.CORRECT
    assert score.parts == {"format": 1.0}


def test_order_of_submission_and_one_collect_each():
    with Scorer([spec("correctness")], num_workers=2) as scorer:
        for gold in range(30):
            scorer.submit(request(tagged(str(gold)), tagged("0"), gold=str(gold)))
        first = scorer.collect()
        scorer.submit(request(tagged("1"), gold="2"))
        second = scorer.collect()
        assert scorer.collect() == []
    assert [scores[0].answer for scores in first] == [str(gold) for gold in range(30)]
    assert all(scores[0].outcome is Outcome.CORRECT for scores in first)
    assert [len(second), second[0][0].outcome] == [1, Outcome.WRONG]


def test_unusable_gold_teaches_nothing():
    with Scorer([spec("correctness", wrong=-1.0)]) as scorer:
        scorer.submit(request(tagged("71"), gold="seventy-one"))
        [[score]] = scorer.collect()
    assert score.outcome is Outcome.GOLD_UNUSABLE
    assert score.parts == {"correctness": None}
    assert score.reward == 0.0


def test_unusable_gold_silences_every_reward_on_the_answer_for_the_whole_group():
    """Nobody is paid for having no answer, or for a long one, when no answer could have been right."""
    specs = [
        spec("correctness", wrong=-1.0),
        spec("length"),
        spec("cosine", max_tokens=100),
        spec("l1_exact", target_tokens=10),
        spec("l1_max", target_tokens=10),
        spec("abstention"),
        spec("overlong", max_tokens=20, cache_tokens=10),
    ]
    with Scorer(specs) as scorer:
        scorer.submit(request(tagged("71"), "no answer", gold="seventy-one"))
        [scores] = scorer.collect()
        assert scorer.take_faults() == []
    assert [score.outcome for score in scores] == ["gold_unusable", "no_answer"]
    assert [score.parts for score in scores] == [
        {**dict.fromkeys((one.name for one in specs), None), "overlong": 0.0},
        {**dict.fromkeys((one.name for one in specs), None), "overlong": -1.0},
    ]


GATED = [
    spec("correctness"),
    spec("length"),
    spec("cosine", max_tokens=100),
    spec("l1_max", target_tokens=20),
    spec("format"),
]


@pytest.mark.parametrize("gates", [True, False])
def test_gate(gates):
    """Lengths 10, 20 and 30. The second is right with prose behind it, the third wrong in the right form."""
    with Scorer(GATED, format_gates=gates) as scorer:
        scorer.submit(request(tagged("71"), tagged("71") + " Bye!", tagged("70")))
        [scores] = scorer.collect()
    assert [score.outcome for score in scores] == ["correct", "correct", "wrong"]
    assert [score.answer for score in scores] == ["71", "71", "70"]
    columns = {name: [score.parts[name] for score in scores] for name in scores[0].parts}
    assert columns["correctness"] == [1.0, 0.0 if gates else 1.0, 0.0]
    assert columns["length"] == [0.5, 0.0, -0.5]
    assert columns["l1_max"] == pytest.approx([0.503, 0.0 if gates else 0.5, 0.0])
    assert columns["format"] == [1.0, 0.0, 1.0]
    wrong_at_20 = -10 * (1 + math.cos(math.pi * 0.2)) / 2
    assert columns["cosine"][1] == pytest.approx(wrong_at_20 if gates else 1 + (1 + math.cos(math.pi * 0.2)) / 2)


def test_gate_takes_the_length_bonus_from_a_short_malformed_answer():
    for gates, expected in ((True, [0.0, -0.5]), (False, [0.5, -0.5])):
        with Scorer([spec("length")], format_gates=gates) as scorer:
            scorer.submit(request("<answer>71</answer>", tagged("71")))
            [scores] = scorer.collect()
        assert [score.parts["length"] for score in scores] == expected


def test_gate_turns_nothing_but_right_answers():
    with Scorer([spec("correctness")], format_gates=True) as scorer:
        scorer.submit(request("<answer>71</answer>", gold="seventy-one"))
        [[score]] = scorer.collect()
    assert (score.outcome, score.parts) == (Outcome.GOLD_UNUSABLE, {"correctness": None})


def test_gate_knows_that_the_template_opened_the_thinking():
    with Scorer([spec("correctness")], format_gates=True) as scorer:
        scorer.submit(request("a</think><answer>71</answer>", tagged("71"), opens_think=True))
        scorer.submit(request("<think>a</think>\\boxed{71}", "\\boxed{71} \\boxed{71}", answer_style="boxed"))
        scores = scorer.collect()
    assert [[score.reward for score in group] for group in scores] == [[1.0, 0.0], [1.0, 0.0]]


def test_target_from_a_column_and_a_fault_where_there_is_none():
    specs = [spec("l1_exact", target_column="budget"), spec("correctness")]
    with Scorer(specs) as scorer:
        scorer.submit(request(tagged("71"), tagged("70"), columns={"budget": 10}))
        scorer.submit(request(tagged("71"), tagged("70"), columns={"budget": "ten"}))
        good, bad = scorer.collect()
        [fault] = scorer.take_faults()
    assert [score.parts["l1_exact"] for score in good] == pytest.approx([1.0, -0.003])
    assert [score.parts for score in bad] == [
        {"l1_exact": None, "correctness": 1.0}, {"l1_exact": None, "correctness": 0.0}
    ]  # fmt: skip
    assert (fault.reward, fault.outcome, fault.num_completions) == ("l1_exact", Outcome.CRASHED, 2)
    assert "options.target_column='budget': problem 't/0' has 'ten' there" in fault.detail


def test_rewards_on_text():
    specs = [spec("repetition", ngram_size=1), spec("language", target="zh"), spec("format", partial=True)]
    with Scorer(specs) as scorer:
        scorer.submit(request("go go go go", "七"))
        [scores] = scorer.collect()
        assert scorer.take_faults() == []
    assert [score.parts for score in scores] == [
        {"repetition": -0.75, "language": 0.0, "format": 0.0},
        {"repetition": 0.0, "language": 1.0, "format": 0.0},
    ]


def test_abstention_sees_the_answers_and_the_form():
    with Scorer([spec("abstention")]) as scorer:
        texts = [tagged("71"), "<answer>71</answer>", tagged("I don't know"), tagged("70"), "70"]
        scorer.submit(request(*texts))
        [scores] = scorer.collect()
    assert [score.reward for score in scores] == [1.0, 0.5, 0.0, -0.5, -1.0]


def test_a_group_without_any_answer_needs_no_worker():
    with Scorer([spec("correctness"), spec("format"), spec("overlong", max_tokens=10, cache_tokens=5)]) as scorer:
        start = time.perf_counter()
        scorer.submit(request("no answer", "none here", gold="x"))
        [scores] = scorer.collect()
        assert time.perf_counter() - start < 0.1
    assert [score.outcome for score in scores] == ["no_answer", "no_answer"]


def test_a_package_that_is_missing_is_named_at_construction(monkeypatch, tmp_path):
    (tmp_path / "py3langid.py").write_text("raise ImportError('staged')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"options.identifier='py3langid': not installed .*pip install"):
        Scorer([spec("language", identifier="py3langid")])


def test_users_functions():
    specs = [
        spec("staged_rewards:length_of_column"),
        spec("staged_rewards.names_only_what_it_needs", bonus=5),
        spec("staged_rewards:takes_a_request", scale=0.5),
    ]
    with Scorer(specs) as scorer:
        scorer.submit(request("abc", "skip", columns={"answer": "xx"}))
        [scores] = scorer.collect()
        assert scorer.take_faults() == []
    question = len("What is 23 + 48?")
    assert [list(score.parts.values()) for score in scores] == [
        [question + 2, 8, 5],
        [question + 2, None, 10],
    ]
    assert scores[1].reward == question + 2 + 10


def test_check_golds_names_the_reason():
    pairs = [("integer", "5"), ("integer", "five"), ("math", "\\frac{1}{2}"), ("countdown", "{}")] * 20
    with Scorer([], num_workers=2, deadline_s=1.0) as scorer:
        reasons = scorer.check_golds([*pairs, ("math", "9!!!!!")])
    assert [reason is None for reason in reasons[:4]] == [True, False, True, False]
    assert reasons[:4] == reasons[76:80]
    assert "five" in reasons[1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("staged_rewards:no_such", "name='staged_rewards:no_such'"),
        ("no_such_module:fn", "name='no_such_module:fn'"),
    ],
)
def test_bad_dotted_path_is_refused_at_construction(name, message):
    with pytest.raises(ValueError, match=message):
        Scorer([spec(name)])


def test_refusals():
    with pytest.raises(ValueError, match="named 2 times"):
        Scorer([spec("format"), spec("format")])
    with Scorer([]) as scorer, pytest.raises(ValueError, match="did you mean 'integer'"):
        scorer.submit(request("a", checker="intger"))
    with pytest.raises(RuntimeError, match="closed"):
        scorer.submit(request("a"))


def test_no_handler_and_no_alarm_in_this_process():
    """Bombs and honest answers leave the process that asks as it was: math-verify alone would set an alarm."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with Scorer([spec("correctness")], deadline_s=0.5) as scorer:
        scorer.submit(request(tagged("10^{10^{10^{10}}}+1"), tagged("\\frac{6}{2}"), gold="3", checker="math"))
        signal.setitimer(signal.ITIMER_REAL, 3600)
        [scores] = scorer.collect()
        left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    assert [score.outcome for score in scores] == ["timed_out", "correct"]
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    assert left_s > 3500  # the caller's own alarm was not disarmed


def test_the_policy_reaches_the_workers():
    policy = AnswerPolicy(unevaluated="refuse", several_boxes="last")
    for chosen, expected in ((DEFAULT_POLICY, ["correct", "wrong"]), (policy, ["wrong", "correct"])):
        with Scorer([], policy=chosen) as scorer:
            scorer.submit(
                request("\\boxed{5!}", "\\boxed{1}, \\boxed{120}", gold="120", checker="math", answer_style="boxed")
            )
            [scores] = scorer.collect()
        assert [score.outcome for score in scores] == expected

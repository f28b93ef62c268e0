import pytest
from scoring import request, tagged

from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.types import Outcome


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


def test_outcome_is_judged_without_the_correctness_reward():
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

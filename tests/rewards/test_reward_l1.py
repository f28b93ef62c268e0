import pytest
from scoring import checked, request_of

from rewards.parts.l1 import l1_exact_reward, l1_max_reward
from rewards.parts.options import L1ExactOptions, L1MaxOptions
from rewards.records import Outcome

RIGHT, WRONG = Outcome.CORRECT, Outcome.WRONG


def exact(lengths, outcome, columns=None, **options):
    found = checked(lengths, [outcome] * len(lengths))
    return l1_exact_reward(request_of(found, columns=columns or {}), found, L1ExactOptions(**options))


def at_most(lengths, outcome, columns=None, **options):
    found = checked(lengths, [outcome] * len(lengths))
    return l1_max_reward(request_of(found, columns=columns or {}), found, L1MaxOptions(**options))


def test_exact_around_the_target():
    """alpha = 0.0003: one token off costs 0.0003 on either side, 1000 tokens cost 0.3; nothing bounds the loss."""
    lengths = [0, 999, 1000, 1001, 2000, 11_000]
    expected = [0.7, 0.9997, 1.0, 0.9997, 0.7, -2.0]
    assert exact(lengths, RIGHT, target_tokens=1000) == pytest.approx(expected)
    assert exact(lengths, WRONG, target_tokens=1000) == pytest.approx([value - 1 for value in expected])


def test_max_at_the_ends_of_the_clip():
    """With alpha = 0.001 and δ = 0.5 the clip ends 500 tokens to either side of the target: at 1500 and at 2500."""
    lengths = [0, 1499, 1500, 1501, 2000, 2499, 2500, 2501, 9999]
    expected = [1.0, 1.0, 1.0, 0.999, 0.5, 0.001, 0.0, 0.0, 0.0]
    assert at_most(lengths, RIGHT, target_tokens=2000, alpha=0.001) == pytest.approx(expected)
    assert at_most(lengths, WRONG, target_tokens=2000, alpha=0.001) == [0.0] * 9


def test_max_has_the_constants_of_the_paper():
    """0.0003 · 100 = 0.03 to either side of 0.5."""
    assert at_most([900, 1000, 1100], RIGHT, target_tokens=1000) == pytest.approx([0.53, 0.5, 0.47])


@pytest.mark.parametrize("reward", [exact, at_most])
@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not RIGHT])
def test_all_other_outcomes_are_wrong(reward, outcome):
    assert reward([400], outcome, target_tokens=400) == [0.0]


@pytest.mark.parametrize("target", [512, 512.0])
def test_the_target_may_stand_in_the_row(target):
    assert exact([512], RIGHT, {"budget": target}, target_column="budget") == [1.0]
    assert exact([412], RIGHT, {"budget": target}, target_column="budget") == pytest.approx([0.97])
    assert at_most([512], RIGHT, {"budget": target}, target_column="budget") == [0.5]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "'budget': problem 't/0' has no such column, only []"),
        ({"bugdet": 5}, "only ['bugdet']"),
        ({"budget": None}, "has None there"),
        ({"budget": "512"}, "has '512' there"),
        ({"budget": True}, "has True there"),
        ({"budget": float("nan")}, "has nan there"),
        ({"budget": float("inf")}, "has inf there"),
        ({"budget": -1}, "has -1 there"),
    ],
)
@pytest.mark.parametrize("reward", [exact, at_most])
def test_a_row_without_a_target_is_refused(reward, columns, message):
    with pytest.raises(ValueError, match="target_column") as caught:
        reward([5], RIGHT, columns, target_column="budget")
    assert message in str(caught.value)

import subprocess
import sys

import pytest
from pydantic import ValidationError

from rewards.parts.builtin import OUTCOME_REWARDS, QUICK_REWARDS, TEXT_REWARDS
from rewards.parts.options import OPTIONS_OF_REWARD
from rewards.spec import RewardSpec

ROWS = [
    ({"name": "lenght"}, "name='lenght': no such reward; did you mean 'length'?"),
    ({"name": "length", "wieght": 2}, "wieght=2: no such key; did you mean 'weight'?"),
    (
        {"name": "length", "options": {"warmup": 2}},
        "options.warmup=2: no such option; did you mean 'warmup_steps'?",
    ),
    ({"name": "overlong", "options": {"max_tokens": 5}}, "options.cache_tokens: not given"),
    (
        {"name": "overlong", "options": {"max_tokens": 5, "cache_tokens": 9}},
        "cache_tokens=9: longer than max_tokens=5",
    ),
    ({"name": "language", "options": {"target": "eng"}}, "options.target='eng': no script is listed"),
    ({"name": "format", "options": {"partial": "perhaps"}}, "options.partial='perhaps'"),
    ({"name": "format", "weight": float("nan")}, "weight=nan: not a finite number"),
    ({"name": "my reward"}, "no such reward"),
    ({"name": "cosin"}, "did you mean 'cosine'?"),
    ({"name": "cosine"}, "options.max_tokens: not given"),
    ({"name": "cosine", "options": {"max_tokens": 0}}, "options.max_tokens=0"),
    ({"name": "cosine", "options": {"max_tokens": 9, "exceeds": 1}}, "did you mean 'exceed'?"),
    ({"name": "l1_exact"}, "exactly one says how long"),
    ({"name": "l1_max", "options": {"target_tokens": 5, "target_column": "n"}}, "set that one and leave out"),
    ({"name": "l1_max", "options": {"target_tokens": 0}}, "options.target_tokens=0"),
    ({"name": "l1_exact", "options": {"target_tokens": 5, "delta": 0.5}}, "options.delta=0.5: no such option"),
    ({"name": "l1_max", "options": {"target_tokens": 5, "alpha": -1}}, "options.alpha=-1"),
    ({"name": "repetition", "options": {"max_penalty": 0.5}}, "options.max_penalty=0.5"),
    ({"name": "repetition", "options": {"ngram_size": 0}}, "options.ngram_size=0"),
    ({"name": "abstention", "options": {"abstained": 0.5}}, "abstained=0.5: not below right_with_rubbish=0.5"),
    ({"name": "abstention", "options": {"wrong": -1.0}}, "wrong_with_rubbish=-1.0: not below wrong=-1.0"),
    ({"name": "abstention", "options": {"right": 0.5}}, "right_with_rubbish=0.5: not below right=0.5"),
    ({"name": "abstention", "options": {"wrong": 0.0}}, "wrong=0.0: not below abstained=0.0"),
    ({"name": "abstention", "options": {"phrases": []}}, "list phrases such as"),
    ({"name": "abstention", "options": {"phrases": ["."]}}, "list phrases such as"),
    ({"name": "language", "options": {"identifier": "langid"}}, "options.identifier='langid'"),
]


@pytest.mark.parametrize(("fields", "message"), ROWS)
def test_refused_with_advice(fields, message):
    with pytest.raises(ValidationError) as caught:
        RewardSpec(**fields)
    assert message in str(caught.value)


def test_accepted():
    assert RewardSpec(name="overlong", options={"max_tokens": 9, "cache_tokens": 3}).weight == 1.0
    assert RewardSpec(name="pack.mod:fn", options={"anything": 1}).is_user_function
    assert RewardSpec(name="pack.mod.fn").is_user_function


def test_every_named_reward_has_options_and_one_place_where_it_is_computed():
    tables = [set(table) for table in (TEXT_REWARDS, QUICK_REWARDS, OUTCOME_REWARDS)]
    assert set.union(*tables) == set(OPTIONS_OF_REWARD)
    assert sum(map(len, tables)) == len(OPTIONS_OF_REWARD)


def test_importing_the_scorer_brings_neither_sympy_nor_torch():
    code = "import sys, rewards.scorer; print({'sympy', 'torch', 'math_verify'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"

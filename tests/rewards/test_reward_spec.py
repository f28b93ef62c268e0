import subprocess
import sys

import pytest
from pydantic import ValidationError

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


def test_importing_the_scorer_brings_neither_sympy_nor_torch():
    code = "import sys, rewards.scorer; print({'sympy', 'torch', 'math_verify'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"

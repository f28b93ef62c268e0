"""Generated problems: right golds, stable items, and splits that never share a question."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest
from pydantic import ValidationError

from data.errors import DataError
from data.problem import Problem
from data.sources import load_problems
from data.spec import SourceSpec

SPLITS = ("train", "test", "validation", "eval")
SMALL_GAME = {"max_number": 12, "num_numbers": 2}
HARD_SUMS = {"min_value": -9, "max_value": 12, "operators": ["+", "-", "*"], "num_operands": 4}


def generate(source: str, split: str = "train", seed: int = 0, count: int = 200, **options: Any) -> list[Problem]:
    spec = SourceSpec(source=source, split=split, seed=seed, num_problems=count, options=options)
    return list(load_problems(spec).problems)


def value_of(question: str) -> int:
    """An evaluator of its own: walks Python's syntax tree and knows three operators and the sign."""
    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}

    def walk(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            return operators[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -walk(node.operand)
        assert isinstance(node, ast.Constant)
        return node.value

    written = re.fullmatch(r"What is (.+)\?", question)
    assert written is not None
    return walk(ast.parse(written[1], mode="eval").body)


def reachable(values: tuple[Fraction, ...]) -> Iterator[Fraction]:
    """Every value of every expression that uses all numbers once."""
    if len(values) == 1:
        yield values[0]
    for i, j in combinations(range(len(values)), 2):
        rest = tuple(value for k, value in enumerate(values) if k not in (i, j))
        a, b = values[i], values[j]
        joined = {a + b, a - b, b - a, a * b} | ({a / b} if b else set()) | ({b / a} if a else set())
        for value in joined:
            yield from reachable((*rest, value))


# Old runs can only be compared with new ones while these stay. The sums were worked by hand; the targets are
# (93 - 46) + (19 - 13) and 52 + 34 - 76.
GOLDEN = [
    ("arithmetic", "train", 0, {}, "What is 23 + 85?", "108"),
    ("arithmetic", "train", 1, {}, "What is 37 + 93?", "130"),
    ("arithmetic", "test", 0, {}, "What is 25 + 67?", "92"),
    ("arithmetic", "train", 2, HARD_SUMS, "What is (-7) * 6 - (-7) + (-2)?", "-37"),
    ("countdown", "train", 0, {}, "numbers 46, 93, 13, 19. ", '{"numbers": [46, 93, 13, 19], "target": 53}'),
    ("countdown", "eval", 3, {}, "numbers 52, 76, 34. ", '{"numbers": [52, 76, 34], "target": 10}'),
]


@pytest.mark.parametrize(("source", "split", "index", "options", "question", "gold"), GOLDEN)
def test_items_are_stable(source, split, index, options, question, gold):
    item = generate(source, split, count=index + 1, **options)[index]
    assert (item.id, item.row) == (f"{source}/{split}/{index}", index)
    assert question in item.question
    assert item.gold == gold


@pytest.mark.parametrize("options", [{}, HARD_SUMS, {"operators": ["-"], "min_value": 10}])
def test_arithmetic_golds_agree_with_a_second_evaluator(options):
    for problem in generate("arithmetic", count=300, **options):
        assert problem.gold == str(value_of(problem.question))
        assert problem.checker == "integer"


def test_arithmetic_keeps_to_its_options():
    options = {"min_value": 3, "max_value": 7, "operators": ["-"], "num_operands": 3, "non_negative": True}
    problems = [problem for split in SPLITS for problem in all_problems("arithmetic", split, **options)]
    for problem in problems:
        numbers = [int(number) for number in re.findall(r"\d+", problem.question)]
        assert len(numbers) == 3
        assert all(3 <= number <= 7 for number in numbers)
        assert problem.question.count("-") == 2
        assert int(problem.gold) >= 0
    operands = {number for problem in problems for number in re.findall(r"\d+", problem.question)}
    assert operands == set("3467"), "5 - 3 - 3 is below 0, so 5 is never drawn"


def test_countdown_targets_can_be_reached():
    for problem in generate("countdown", count=60):
        gold = json.loads(problem.gold)
        assert set(gold) == {"numbers", "target"}
        assert Fraction(gold["target"]) in set(reachable(tuple(map(Fraction, gold["numbers"]))))


def test_countdown_question_and_gold_say_the_same():
    problems = generate("countdown", count=300, max_number=20, max_target=50)
    for problem in problems:
        gold = json.loads(problem.gold)
        *numbers, target = (int(number) for number in re.findall(r"\d+", problem.question))
        assert {"numbers": numbers, "target": target} == gold == problem.columns
        assert all(1 <= number <= 20 for number in numbers)
        assert 1 <= target <= 50
        assert problem.checker == "countdown"
    threes = sum(len(problem.columns["numbers"]) == 3 for problem in problems)
    assert 110 <= threes <= 190, "a range of counts is drawn evenly"


@pytest.mark.parametrize("counts", [3, [3, 3]])
def test_countdown_with_one_count(counts):
    assert {len(problem.columns["numbers"]) for problem in generate("countdown", num_numbers=counts)} == {3}


def num_questions(refusal: str) -> int:
    """The number that a refusal names; a split without any question says so in words."""
    found = re.search(r"no more than (\d+) different questions", refusal)
    return int(found[1]) if found else 0


def all_problems(source: str, split: str, seed: int = 0, **options: Any) -> list[Problem]:
    """Everything that the options leave for a split."""
    with pytest.raises(DataError) as refused:
        generate(source, split, seed, count=10**6, **options)
    number = num_questions(str(refused.value))
    return generate(source, split, seed, count=number, **options) if number else []


def canonical(problem: Problem) -> tuple[int, ...]:
    """Operands or numbers without their order; a countdown's target is not part of it."""
    numbers = problem.columns.get("numbers") or map(int, re.findall(r"\d+", problem.question))
    return tuple(sorted(numbers))


@pytest.mark.parametrize(("source", "options"), [("arithmetic", {"max_value": 30}), ("countdown", SMALL_GAME)])
def test_no_question_is_in_two_splits_whatever_the_seed(source, options):
    """Small spaces, drawn to their end, so that an overlap could not stay unseen."""
    seen: dict[tuple[int, ...], str] = {}
    for split in SPLITS:
        for seed in (0, 1):
            for problem in all_problems(source, split, seed, **options):
                assert seen.setdefault(canonical(problem), split) == split
    assert set(seen.values()) == set(SPLITS)


def test_a_larger_game_shares_no_numbers_between_splits():
    seen: dict[tuple[int, ...], str] = {}
    for split in SPLITS:
        for seed in (0, 1):
            for problem in generate("countdown", split, seed, count=400, max_number=12):
                assert seen.setdefault(canonical(problem), split) == split


# Distinct problems


def test_the_quickstarts_held_out_sums_are_200_different_ones():
    problems = generate("arithmetic", "test", count=200, min_value=10, max_value=99)
    assert len({canonical(problem) for problem in problems}) == 200


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    ("source", "options"), [("arithmetic", {"max_value": 40}), ("countdown", {"max_number": 9, "num_numbers": 3})]
)
def test_no_problem_comes_twice_in_a_set(source, options, split):
    problems = generate(source, split, count=30, **options)
    assert len({(canonical(problem), problem.columns.get("target")) for problem in problems}) == 30


def test_all_sums_there_are_can_be_had_in_any_order_once():
    """Of the numbers 1 to 30, two with repetition: 30 x 31 / 2."""
    found = [canonical(problem) for split in SPLITS for problem in all_problems("arithmetic", split, max_value=30)]
    assert len(found) == len(set(found)) == 465


def test_the_same_numbers_with_another_target_are_another_problem():
    """Of two numbers a and b: a + b, |a - b|, a b, and a / b or b / a where it is whole; those from 1 to 100."""
    found = [problem.columns for split in SPLITS for problem in all_problems("countdown", split, **SMALL_GAME)]
    expected = set()
    for a in range(1, 13):
        for b in range(a, 13):
            targets = {a + b, b - a, a * b} | ({b // a} if b % a == 0 else set())
            expected |= {((a, b), target) for target in targets if 1 <= target <= 100}
    assert sorted((tuple(sorted(one["numbers"])), one["target"]) for one in found) == sorted(expected)


def test_a_seed_changes_the_order_and_not_what_there_is():
    one, other = (all_problems("arithmetic", "test", seed, max_value=30) for seed in (0, 1))
    assert {canonical(problem) for problem in one} == {canonical(problem) for problem in other}
    assert [problem.question for problem in one] != [problem.question for problem in other]


def test_more_problems_than_there_are_is_refused_with_their_number():
    """Of the sums of 1 and 2, each split has those that fall to it: 1 + 1, 1 + 2 and 2 + 2 in all."""
    number = 0
    for split in SPLITS:
        with pytest.raises(DataError, match=r"num_problems=1000000: with .* no more than|no question") as refused:
            generate("arithmetic", split, count=10**6, max_value=2)
        number += num_questions(str(refused.value))
    assert number == 3


def sum_form(problem: Problem) -> tuple[tuple[str, ...], ...]:
    terms = problem.question.removeprefix("What is ").removesuffix("?").split(" + ")
    return tuple(sorted(tuple(sorted(term.split(" * "))) for term in terms))


def test_swapped_factors_and_terms_stay_in_one_split():
    asked = {
        split: all_problems("arithmetic", split, max_value=6, num_operands=3, operators=["+", "*"]) for split in SPLITS
    }
    forms = {
        split: {
            tuple(sorted(tuple(sorted(term.split(" * "))) for term in p.question[8:-1].split(" + "))) for p in problems
        }
        for split, problems in asked.items()
    }
    for one, other in combinations(SPLITS, 2):
        assert not forms[one] & forms[other]


def test_neighbouring_seeds_have_nothing_in_common():
    first, second = (generate("arithmetic", seed=seed, max_value=10**9) for seed in (7, 8))
    assert not {p.question for p in first} & {p.question for p in second}


def test_an_item_does_not_depend_on_how_many_are_asked_for():
    assert generate("countdown", count=5) == generate("countdown", count=50)[:5]


BAD_SPECS = [
    ({"options": {"max_valu": 3}}, "options.max_valu=3: .*did you mean 'max_value'"),
    ({"options": {"min_value": "3"}}, "options.min_value='3': input should be a valid integer"),
    ({"options": {"min_value": 5, "max_value": 4}}, "options.min_value=5: is above options.max_value=4"),
    ({"options": {"min_value": -5, "max_value": -1, "non_negative": True}}, "options.non_negative=True"),
    ({"options": {"operators": ["/"]}}, "options.operators.0='/'"),
    ({"options": {"operators": []}}, "options.operators"),
    ({"options": {"num_operands": 1}}, "options.num_operands=1"),
    ({"num_problems": None}, "num_problems=None: arithmetic is generated"),
    ({"split": "valid"}, "split='valid': .*did you mean 'validation'"),
    ({"path": "x.jsonl"}, "path='x.jsonl': arithmetic is generated"),
    ({"keep": {"level": [3]}}, "keep=.*: arithmetic is generated"),
    ({"source": "countdown", "options": {"num_numbers": [4, 3]}}, r"options.num_numbers=\[4, 3\]"),
    ({"source": "countdown", "options": {"num_numbers": 9}}, "options.num_numbers.0=9"),
    ({"source": "countdown", "options": {"operators": ["+"]}}, "options.operators=.*is not a known key"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_SPECS)
def test_contradictory_specs_are_refused_by_name(changes, message):
    with pytest.raises(ValidationError, match=message):
        SourceSpec(**{"source": "arithmetic", "num_problems": 1} | changes)


def test_a_space_without_questions_for_the_split_is_refused():
    with pytest.raises(ValueError, match="split='eval': no question of arithmetic was found"):
        generate("arithmetic", "eval", count=1, max_value=1)

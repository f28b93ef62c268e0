import time

import pytest

from rewards.parts.options import RepetitionOptions
from rewards.parts.repetition import repetition_penalty

ROWS = [
    ("", 3, 0.0, "empty"),
    (" \n\t ", 1, 0.0, "nothing but blanks"),
    ("one two", 3, 0.0, "one word too few"),
    ("one two three", 3, 0.0, "one n-gram"),
    ("go go go go", 3, -1 / 2, "2 n-grams, 1 of them new"),
    ("a b c d e f", 2, 0.0, "all differ"),
    ("a b a b a", 2, -2 / 4, "ab ba ab ba: 2 of 4"),
    ("a b a b a", 3, -1 / 3, "aba bab aba: 2 of 3"),
    ("Yes yes YES", 1, -2 / 3, "case does not matter"),
    ("so, so so.", 1, 0.0, "punctuation belongs to the word"),
    ("x\ny\n\nx\ty", 2, -1 / 3, "any white space parts words: xy yx xy"),
]


@pytest.mark.parametrize(("text", "size", "expected", "reason"), ROWS, ids=[row[3] for row in ROWS])
def test_penalty(text, size, expected, reason):
    assert repetition_penalty(text, RepetitionOptions(ngram_size=size)) == pytest.approx(expected)


def test_max_penalty_scales_and_may_be_zero():
    assert repetition_penalty("go go go go", RepetitionOptions(max_penalty=-0.4)) == pytest.approx(-0.2)
    assert str(repetition_penalty("go go go go", RepetitionOptions(max_penalty=0.0))) == "0.0"
    assert str(repetition_penalty("a b c d", RepetitionOptions())) == "0.0"


def test_defaults():
    assert (RepetitionOptions().ngram_size, RepetitionOptions().max_penalty) == (3, -1.0)


@pytest.mark.parametrize("size", [1, 3, 40])
def test_time_is_linear(size):
    start = time.perf_counter()
    assert repetition_penalty("word " * 200_000, RepetitionOptions(ngram_size=size)) < -0.99
    assert time.perf_counter() - start < 3.0

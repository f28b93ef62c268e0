import time

import pytest

from rewards.language import language_share

ROWS = [
    ("The sum is seventy one.", "en", 1.0, "all English"),
    ("The sum is 七十一", "en", 0.5, "three words, three letters of Han"),
    ("所以答案是七十一", "zh", 1.0, "all Chinese"),
    ("Да, верно", "ru", 1.0, "Cyrillic"),
    ("Да, верно", "en", 0.0, "Cyrillic is not English"),
    ("12 + 34 = 46", "en", 1.0, "no words: neutral"),
    ("", "zh", 1.0, "empty: neutral"),
    ("所以 $x = abc + \\frac{foo}{2}$", "zh", 1.0, "maths left out"),
    ("所以\n```python\nfor item in items: total\n```", "zh", 1.0, "code left out"),
    ("<think>所以</think><answer>是</answer>", "zh", 1.0, "tags left out"),
    ("\\alpha \\beta 所以", "zh", 1.0, "commands left out"),
    ("$\\text{hidden words}$ 所以", "zh", 0.5, "prose in \\text counts"),
    ("```\n所以答案\n```", "en", 0.0, "other scripts in a fence count"),
    ("```\nwe now add all the numbers together\n```所", "zh", 1 / 8, "prose in a fence counts"),
    ("$we now add all the numbers together$所", "zh", 1 / 8, "prose in maths counts"),
    ("don't isn't", "en", 1.0, "apostrophes join"),
    ("a I x π", "zh", 1.0, "single letters are no words"),
    ("नमस्ते दुनिया", "hi", 1.0, "marks belong to their letter"),
    ("$ 所以答案 and so on", "en", 3 / 7, "an unclosed formula hides nothing"),
]


@pytest.mark.parametrize(("text", "target", "expected", "reason"), ROWS, ids=[row[3] for row in ROWS])
def test_share(text, target, expected, reason):
    share = language_share(text, target)
    assert share == pytest.approx(expected)


@pytest.mark.parametrize("piece", ["$", "`", "```", "\\(", "\\text{", "\\text", "<think>", "word ", "a" * 50])
def test_hostile_texts_take_linear_time(piece):
    start = time.perf_counter()
    language_share(piece * 50_000, "en")
    language_share("$" + piece * 50_000 + "$", "zh")
    assert time.perf_counter() - start < 3.0

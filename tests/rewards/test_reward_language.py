import importlib.util
import sys
import time
from types import SimpleNamespace

import pytest

from rewards.parts.identify import open_identifier, sentences
from rewards.parts.language import language_share

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
    ("sinθ = 0.5 and Δx = πr, 5\u03bcm", "en", 1.0, "Greek symbols beside letters"),
    ("따라서 x는 AI는 칠십일입니다", "ko", 2 / 3, "particles on foreign words: AI counts, x does not"),
    ("wu\u0308rde und w\u00fcrde", "de", 1.0, "composed and decomposed"),
    ("triangle A B C has sides a, b, c, d, e, f", "zh", 0.0, "labels and lists of letters are no words: 3 of 3"),
    ("所以\n```python\nimport numpy as np\nimport pandas as pd\n```", "zh", 1.0, "imports are code"),
    ("所以\n```\nfor item in items:\n    total += item\nreturn total\nprint(total)\n```", "zh", 1.0, "so are loops"),
    ("所以 `for item in` $items$", "zh", 1.0, "code with a formula beside it is code: four words"),
    ("所以 $all red balls$", "zh", 2 / 5, "three words in maths are prose"),
    ("\uff48\uff45\uff4c\uff4c\uff4f", "en", 1.0, "full-width letters"),
    ("$v_{max} = x_{total} \\cdot t_{end}$ 所以", "zh", 1.0, "names in subscripts"),
]


@pytest.mark.parametrize(("text", "target", "expected", "reason"), ROWS, ids=[row[3] for row in ROWS])
def test_share(text, target, expected, reason):
    share = language_share(text, target)
    assert share == pytest.approx(expected)


PROSE = "we now add all the numbers together and then divide by three"
HAN = "所以答案是七十一"
WORDS = PROSE.split()
"""Twelve English words and eight Chinese ones: the honest share of Chinese is 8 / 20."""
CIRCLED = "".join(chr(ord(letter) - ord("a") + 0x24D0) if letter != " " else " " for letter in PROSE)
BOLD = "".join(chr(ord(letter) - ord("a") + 0x1D41A) if letter != " " else " " for letter in PROSE)
ESCAPES = [
    (f"$\\text{{{PROSE}}}$", "\\text"),
    ("$\\text{" + "".join(f"{{{word}}} " for word in WORDS) + "}$", "braces in \\text"),
    ("$\\text{" + "".join(f"{{{{{word}}}}} " for word in WORDS) + "}$", "braces in braces in \\text"),
    ("$\\mathrm{" + "\\ ".join(WORDS) + "}$", "LaTeX blanks"),
    ("$" + "~".join(WORDS) + "$", "ties"),
    ("$" + "\u00a0".join(WORDS) + "$", "no-break blanks"),
    ("$" + "".join(f"\\operatorname{{{word}}}" for word in WORDS) + "$", "one command a word"),
    (f"\\[ {PROSE} \\]", "display maths"),
    (f"```\n{PROSE}\n```", "fence"),
    ("```\n" + "\n".join(WORDS) + "\n```", "one word a line in a fence"),
    (f"```python\n# {PROSE}\n```", "comment"),
    ("```\n" + "_".join(WORDS) + "\n```", "a long name"),
    (" ".join(f"`{word}`" for word in WORDS), "each word in back-ticks"),
    (" ".join(f"${word}$" for word in WORDS), "each word a formula"),
    (" ".join(f"${word}$" if i % 2 else f"`{word}`" for i, word in enumerate(WORDS)), "formulas and back-ticks"),
    (" ".join("\u200b".join(word) for word in WORDS), "zero-width spaces"),
    (" ".join("\u2060".join(word) for word in WORDS), "word joiners"),
    ("```\n" + " ".join("\u200b".join(word) for word in WORDS) + "\n```", "zero-width spaces in a fence"),
    (" ".join("\u0301".join(word) for word in WORDS), "marks between letters"),
    (PROSE.replace("e", "\u0435").replace("a", "\u0430").replace("o", "\u043e"), "Cyrillic look-alikes"),
    (CIRCLED, "circled letters"),
    (BOLD, "mathematical letters"),
    (f"<!-- {PROSE} -->", "comment of HTML"),
]


@pytest.mark.parametrize(("text", "reason"), ESCAPES, ids=[row[1] for row in ESCAPES])
def test_prose_cannot_be_hidden(text, reason):
    assert language_share(text + HAN, "zh") == pytest.approx(8 / 20)


def test_spelling_out_hides_nothing():
    """The 49 letters count one by one: more than the words would have."""
    num_letters = len(PROSE.replace(" ", ""))
    assert language_share(" ".join(PROSE.replace(" ", "")) + HAN, "zh") == pytest.approx(8 / (8 + num_letters))


def test_look_alikes_count_for_no_language():
    """'and' is written in Latin letters, all the rest with one Cyrillic letter or more, or all Cyrillic."""
    assert language_share("th\u0435 numb\u0435r and", "en") == pytest.approx(1 / 3)
    assert language_share("th\u0435 numb\u0435r and", "ru") == 0.0


def test_other_signs_for_words_count_against_both():
    for text in ("\u283a\u2811 \u281d\u2815\u283a", "\U0001f1fc\U0001f1ea \U0001f1f3\U0001f1f4"):
        assert language_share(text, "en") == 0.0


PIECES = [
    "$",
    "`",
    "```",
    "\\(",
    "\\text{",
    "\\text",
    "\\text{a}",
    "\\text{{a}",
    "<think>",
    "L_",
    "{",
    "}",
    "\\",
    "from",
]
PIECES += [
    "word ",
    "a" * 50,
    "a ",
    "a,",
    "a\u0301",
    "\u03b1",
    "a\u03b1",
    "\u0430",
    "\u200b",
    "$a$ ",
    "`a` ",
    "import a\n",
]


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_texts_take_linear_time(piece):
    start = time.perf_counter()
    language_share(piece * 50_000, "en")
    language_share("$" + piece * 50_000 + "$", "zh")
    language_share("`" + piece * 50_000 + "`", "zh")
    list(sentences(piece * 50_000))
    assert time.perf_counter() - start < 3.0


def is_german(sentence):
    return "und" in sentence.split()


def test_sentences_of_another_language_do_not_count():
    """Of 9, 7 and 1 words; the last is too short to stand alone, but nothing follows that it could be joined to."""
    german = "Wir rechnen zuerst die Summe aus und teilen danach. "
    english = "Then somebody else divides everything between them.\n"
    assert [len(sentence.split()) for sentence in sentences(german + english + "Fini")] == [9, 7, 1]
    assert language_share(german + english + "Fini", "de") == 1.0
    assert language_share(german + english + "Fini", "de", is_german) == pytest.approx(9 / 17)
    assert language_share(german + english + "七七七", "de", is_german) == pytest.approx(9 / 19)


def test_a_sentence_ends_when_enough_letters_have_come_together():
    assert list(sentences("So. " * 19 + "So. " + "So.")) == ["So. " * 20, "So."]
    assert [len(sentence) for sentence in sentences("a" * 39 + ". " + "a. b")] == [44, 1]
    assert [len(sentence) for sentence in sentences("ab " * 200)] == [360, 240]
    assert list(sentences("七" * 40 + "。" + "七" * 40 + "。")) == ["七" * 40 + "。"] * 2
    assert list(sentences("")) == []


def test_an_identifier_that_is_not_installed_is_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"options.identifier='no_such_package': not installed .* pip install"):
        open_identifier("no_such_package", "en")


def test_in_doubt_a_sentence_is_in_the_target(monkeypatch):
    answers = {"a": ("de", 0.9), "b": ("fr", 0.5), "c": ("fr", 0.49), "d": ("zxx", 0.9), "e": ("nn", 0.9)}
    identifier = SimpleNamespace(classify=answers.get)
    loader = SimpleNamespace(from_model_file=lambda file, norm_probs: identifier if norm_probs else None)
    module = SimpleNamespace(LanguageIdentifier=loader, MODEL_FILE="model")
    monkeypatch.setitem(sys.modules, "staged_package.langid", module)
    assert [open_identifier("staged_package", "de")(text) for text in "abcde"] == [True, False, True, True, False]
    assert [open_identifier("staged_package", "no")(text) for text in "ae"] == [False, True]


ENGLISH = "First we work out how many apples she has. She starts with twelve apples and gives three to her brother."
GERMAN = "Zuerst rechnen wir aus, wie viele Äpfel sie hat. Sie hat zwölf Äpfel und gibt ihrem Bruder drei davon."
FRENCH = "D'abord, nous calculons combien de pommes elle possède. Elle en a douze et en donne trois à son frère."


@pytest.mark.skipif(importlib.util.find_spec("py3langid") is None, reason="py3langid is not installed")
def test_py3langid_tells_languages_of_one_script_apart():
    texts = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH}
    for target in texts:
        is_target = open_identifier("py3langid", target)
        assert {code: language_share(text, target, is_target) for code, text in texts.items()} == {
            code: float(code == target) for code in texts
        }
        assert language_share("x + 2x = 700, 3x = 21 kg", target, is_target) == 1.0
    mixed = language_share(f"{ENGLISH}\n{GERMAN}", "en", open_identifier("py3langid", "en"))
    assert mixed == pytest.approx(20 / 39)

"""Answers that are never computed: choice letters, words, ratios and times of day."""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd

from rewards.answer_policy import AnswerPolicy

_FRONT = r"(?:(?:[Tt]he )?(?:[Oo]ption|[Cc]hoice|[Aa]nswer)(?: is)?:? )?"
_CHOICE = re.compile(rf"{_FRONT}(?:\( ?([A-Z]) ?\)|\[ ?([A-Z]) ?\]|([A-Z]) ?[).:]?)")
_LABELLED = re.compile(
    r"(?:\\text ?\{ ?)?(?:\( ?(?P<bracketed>[A-J]) ?\)|(?P<marked>[A-J]) ?[).:])(?: ?\})? (?P<rest>(?![-+*/^=<>]).+)"
)
_NO_OPTION = re.compile(r"\( ?[A-Z] ?\)|(?<![A-Za-z])[A-Z](?![A-Za-z])|\b(?:not|no|or|and|is|wrong|false|incorrect)\b")
_WORDS = re.compile(r"(?:\\text ?\{[^{}]*\}|[A-Za-z]{2,})(?:[ ,.;:'-]+(?:\\text ?\{[^{}]*\}|[A-Za-z]+))*")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_ARTICLE = re.compile(r"^(?:an?|the) (?=[a-z]{2})", re.IGNORECASE)
_RATIO = re.compile(r"([0-9]{1,9}(?: ?: ?[0-9]{1,9})+)")
_SHORT_WORDS = frozenset(("no", "yes", "odd", "one", "two", "six", "ten", "all", "any"))
_FUNCTIONS = frozenset(("sqrt", "arcsin", "arccos", "arctan"))


def same_words(gold: str, answer: str, policy: AnswerPolicy) -> bool | None:
    """The verdict where the gold is a letter, words or a ratio; None where it is anything that can be computed."""
    if choice := _CHOICE.fullmatch(gold):
        return (choice[1] or choice[2] or choice[3]) == _chosen(answer)
    label, chosen = _label(gold), _chosen(answer)
    if label and chosen:
        return label == chosen and _label(answer) is None
    if is_text(gold):
        return fold(gold, policy) == fold(answer, policy)
    ratios = [_RATIO.fullmatch(text.rpartition("=")[2].strip()) for text in (gold, answer)]
    if all(ratios):
        wanted, given = ([int(number) for number in text[1].split(":")] for text in ratios if text)
        return _same_ratio(wanted, given)
    return None


def is_text(text: str) -> bool:
    """Words, not a product of variables: ``\\text{…}``, capitals in a row, four letters and more, "yes" or "no"."""
    if not _WORDS.fullmatch(text) or text in _FUNCTIONS:
        return False
    return "\\text" in text or text.isupper() or " " in text or len(text) > 3 or text.lower() in _SHORT_WORDS


def fold(text: str, policy: AnswerPolicy) -> str:
    """Words with single blanks and without `\\text{}`, stops and article, in one case from two letters on."""
    plain = " ".join(_TEXT.sub(r" \1 ", text).split()).strip(" .\"'")
    plain = _ARTICLE.sub("", plain)
    return plain if policy.case == "exact" or len(plain) == 1 else plain.casefold()


def fold_words_in(text: str, policy: AnswerPolicy) -> str:
    """Notation with words in it: only what stands in `\\text{}` is folded, since other letters are names."""
    return "".join(_TEXT.sub(lambda words: f"\\text{{{fold(words[1], policy)}}}", text).split())


def without_label(text: str) -> str:
    """``(B) 7`` is 7: the value behind a choice's letter, where there is one letter only."""
    label = _LABELLED.fullmatch(text)
    return label["rest"].strip() if label is not None and label["bracketed"] and _label(text) else text


def _label(text: str) -> str | None:
    """The letter of a choice in front of its words or value; None where there is none, or more than one."""
    label = _LABELLED.fullmatch(text)
    if label is None or _NO_OPTION.search(label["rest"]):
        return None
    return label["bracketed"] or label["marked"]


def _chosen(answer: str) -> str | None:
    """The one letter that an answer chooses: ``B``, ``(B)``, ``B.``, ``(B) 7``."""
    plain = " ".join(_TEXT.sub(r"\1", answer).split())
    if choice := _CHOICE.fullmatch(plain):
        return choice[1] or choice[2] or choice[3]
    return _label(plain)


def _same_ratio(wanted: list[int], given: list[int]) -> bool:
    """A ratio may be scaled; ``3:30`` is a time of day, for a ratio would be written in lowest terms."""
    if wanted == given:
        return True
    if len(wanted) != len(given) or gcd(*wanted) != 1 or not all([*wanted, *given]):
        return False
    return len({Fraction(one, other) for one, other in zip(wanted, given, strict=True)}) == 1

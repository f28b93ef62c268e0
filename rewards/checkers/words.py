"""Answers that are never computed: choice letters, words, ratios and times of day."""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd

from rewards.policy import AnswerPolicy

_CHOICE = re.compile(r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer):? )?\(? ?([A-Z]) ?[).:]?")
_LABELLED = re.compile(r"(?:\\text ?\{ ?)?(?:\( ?([A-Z]) ?\)|([A-Z]) ?[).:])(?: ?\})?(?P<rest> ?[^ ].*)")
_ANOTHER_LABEL = re.compile(r"\( ?[A-Z] ?\)")
_WORDS = re.compile(r"(?:\\text ?\{[^{}]*\}|[A-Za-z]{2,})(?:[ ,.;:'-]*(?:\\text ?\{[^{}]*\}|[A-Za-z]+))*")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_ARTICLE = re.compile(r"^(?:an?|the) (?=[a-z]{2})", re.IGNORECASE)
_RATIO = re.compile(r"([0-9]{1,9}(?: ?: ?[0-9]{1,9})+)")
_FUNCTION_NAMES = "sin cos tan cot sec csc log ln exp sqrt arcsin arccos arctan"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())


def same_words(gold: str, answer: str, policy: AnswerPolicy) -> bool | None:
    """The verdict where the gold is a letter, words or a ratio; None where it is anything that can be computed."""
    if choice := _CHOICE.fullmatch(gold):
        return choice[1] == _chosen(answer)
    if (labelled := _LABELLED.fullmatch(gold)) and labelled[1] and labelled[1] == _chosen(answer, alone=True):
        return True
    if is_text(gold):
        return fold(gold, policy) == fold(answer, policy)
    ratios = [_RATIO.fullmatch(text.rpartition("=")[2].strip()) for text in (gold, answer)]
    if all(ratios):
        wanted, given = ([int(number) for number in text[1].split(":")] for text in ratios if text)
        return _same_ratio(wanted, given)
    return None


def is_text(text: str) -> bool:
    """Words, not a product of variables: ``\\text{…}``, capitals in a row, or four letters and more."""
    if not _WORDS.fullmatch(text) or text in _FUNCTIONS:
        return False
    return "\\text" in text or text.isupper() or " " in text or len(text) > 3


def fold(text: str, policy: AnswerPolicy) -> str:
    """Words with single blanks and without `\\text{}`, stops and article, in one case from two letters on."""
    plain = " ".join(_TEXT.sub(r" \1 ", text).split()).strip(" .")
    plain = _ARTICLE.sub("", plain)
    return plain if policy.case == "exact" or len(plain) == 1 else plain.casefold()


def without_label(text: str) -> str:
    """``(B) 7`` is 7: the value behind a choice's letter, where there is one letter only."""
    label = _LABELLED.fullmatch(text)
    if label is None or not label[1] or _ANOTHER_LABEL.search(label["rest"]):
        return text
    return label["rest"].strip()


def _chosen(answer: str, alone: bool = False) -> str | None:
    """The one letter that an answer chooses: ``B``, ``(B)``, ``B.``, and unless it has to stand alone ``(B) 7``."""
    plain = " ".join(_TEXT.sub(r"\1", answer).split())
    if choice := _CHOICE.fullmatch(plain):
        return choice[1]
    label = None if alone else _LABELLED.fullmatch(plain)
    if label is None or _ANOTHER_LABEL.search(label["rest"]):
        return None
    return label[1] or label[2]


def _same_ratio(wanted: list[int], given: list[int]) -> bool:
    """A ratio may be scaled; ``3:30`` is a time of day, for a ratio would be written in lowest terms."""
    if wanted == given:
        return True
    if len(wanted) != len(given) or gcd(*wanted) != 1 or not all([*wanted, *given]):
        return False
    return len({Fraction(one, other) for one, other in zip(wanted, given, strict=True)}) == 1

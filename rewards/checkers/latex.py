"""Mathematics in LaTeX: normalise, compare, and only then compute.

Gold and answer are brought into one spelling (`normalize`). Equal strings are right at once; two written
numbers are compared exactly (`numbers`); the rest goes to math-verify (`symbolic`). Where public test suites
disagree:

==================  =========================================================================================
per cent            ``60\\%`` is 0.6; it is not 60. A whole number is not written in per cent: 1 is not
``100\\%`` rounding            none, but for a fraction without a finite decimal, which six digits may stand
for units               a number's unit may be missing on one side; two different units are wrong
equations           ``x = 2`` is 2, and 2 is ``x = 2``. ``\\sqrt{4} = 2`` is 2 because each side is.
                    A gold ``x = 3`` is not met by another equation that x solves (``2x = 6``)
approximations      what stands before ``\\approx`` is the answer
words, choices      by their letters, in their order, upper and lower case alike from two letters on
ratios              ``6:8`` is ``3:4``
several boxes       the last one
==================  =========================================================================================
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.checkers.normalize import normalize, squeeze
from rewards.checkers.numbers import Written, parse_number, same_number
from rewards.errors import MalformedAnswerError, UnusableGoldError

_MAX_CHARS = 2000
_MAX_DIGIT_RUN = 400
_MAX_DEPTH = 60
_DIGIT_RUN = re.compile(rf"[0-9]{{{_MAX_DIGIT_RUN},}}")
_NAME = re.compile(r"\\?[A-Za-z]+(?:_\{?[\w+-]+\}?)?'?(?: ?\( ?[A-Za-z](?: ?, ?[A-Za-z])* ?\))?|[A-Za-z_{}:]+")
_EQUALS = re.compile(r"(?<![<>!\\])=")
_WORDS = re.compile(r"(?:\\text ?\{[^{}]*\}|[A-Za-z]{2,})(?:[ ,.'-]*(?:\\text ?\{[^{}]*\}|[A-Za-z]+))*")
_LITERAL = re.compile(r"\\(?:[lcdv]?dots|forall|exists|mathbb|text|lfloor|lceil)(?![A-Za-z])|[0-9]_|\\#")
_RATIO = re.compile(r"([0-9]{1,9}) ?: ?([0-9]{1,9})")
_CHOICE = re.compile(r"\(?([A-Z])[).]?")
_UNIT = re.compile(
    r"(?P<body>.*?[0-9}.]) ?(?P<unit>\^\\circ|\\text ?\{[^{}]*\}(?: ?\^ ?\{?[23]\}?)?"
    r"|\\frac ?\{ ?\\text ?\{[a-z]+\} ?\} ?\{ ?\\text ?\{[a-z]+\} ?\}"
    r"|(?:(?:square|cubic) )?(?:[mck]?m|km|kg|mm|ft|in|inches|inch|feet|foot|yards?|miles?|meters?|metres?"
    r"|hours?|minutes?|seconds?|days?|weeks?|months?|years?|dollars?|cents?|euros?|units?|degrees?|grams?"
    r"|pounds?|liters?|litres?|people|students|ways|mph|km/h|m/s)(?: ?\^ ?\{?[23]\}?)?)"
)


def check(gold: str, answer: str) -> bool:
    """Do both mean the same? Raises UnusableGoldError for an empty or oversized gold."""
    wanted, given = _read_gold(gold), normalize(answer)
    if not given:
        return False
    if squeeze(wanted) == squeeze(given):
        return True
    if (fault := _oversize(given)) is not None:
        raise MalformedAnswerError(fault)
    return _same(wanted, given)


def check_gold(gold: str) -> str | None:
    """Also sends the gold through math-verify, so that one that cannot be computed is found at the start."""
    try:
        wanted = _read_gold(gold)
    except UnusableGoldError as error:
        return str(error)
    if parse_number(wanted) is not None or _is_text(wanted):
        return None
    from rewards.checkers import symbolic

    if symbolic.parse(wanted) is None:
        return None
    return None if symbolic.same_expression(wanted, wanted) else "does not verify against itself"


def _read_gold(gold: str) -> str:
    wanted = normalize(gold)
    if not wanted:
        raise UnusableGoldError("the gold is empty")
    if (fault := _oversize(wanted)) is not None:
        raise UnusableGoldError(fault)
    return wanted


def _oversize(text: str) -> str | None:
    if len(text) > _MAX_CHARS:
        return f"longer than {_MAX_CHARS} characters"
    if _DIGIT_RUN.search(text):
        return f"a number of more than {_MAX_DIGIT_RUN} digits"
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return f"more than {_MAX_DEPTH} brackets inside each other" if deepest > _MAX_DEPTH else None


def _same(gold: str, answer: str) -> bool:
    """The decision after the trivial cases: words and ratios, units, equations, numbers, expressions."""
    if (by_kind := _same_by_kind(gold, answer)) is not None:
        return by_kind
    (gold, gold_unit), (answer, answer_unit) = _split_unit(gold), _split_unit(answer)
    if gold_unit and answer_unit and gold_unit != answer_unit:
        return False
    pairs = _pair_sides(gold, _before_approx(answer))
    return bool(pairs) and all(_same_value(*pair) for pair in pairs)


def _same_by_kind(gold: str, answer: str) -> bool | None:
    """The verdict where gold is of a kind that is never computed, else None."""
    if choice := _CHOICE.fullmatch(gold):
        chosen = _CHOICE.fullmatch(_plain_words(answer))
        return chosen is not None and chosen[1] == choice[1]
    if _is_text(gold):
        return _plain_words(gold).casefold() == _plain_words(answer).casefold()
    ratios = [_RATIO.fullmatch(text.rpartition("=")[2].strip()) for text in (gold, answer)]
    if all(ratios):
        left, right = (Fraction(int(r[1]), int(r[2]) or 1) for r in ratios if r)
        return left == right
    return None


def _is_text(text: str) -> bool:
    """Words, not a product of variables: ``\\text{…}``, capitals in a row, or four letters and more."""
    if not _WORDS.fullmatch(text):
        return False
    return "\\text" in text or text.isupper() or " " in text or len(text) > 3


def _plain_words(text: str) -> str:
    return " ".join(re.sub(r"\\text ?\{([^{}]*)\}", r"\1", text).split()).strip(" .")


def _split_unit(text: str) -> tuple[str, str]:
    """A number and its unit in one spelling (``""`` without); anything but a number keeps its letters."""
    match = _UNIT.fullmatch(text)
    if match is None or (parse_number(match["body"]) is None and "text" not in match["unit"]):
        return text, ""
    unit = re.sub(r"\\text|[{} ]", "", match["unit"]).rstrip("s")
    return match["body"].strip(), unit


def _before_approx(text: str) -> str:
    before, _, _ = text.partition("\\approx")
    return before.strip() or text


def _pair_sides(gold: str, answer: str) -> list[tuple[str, str]]:
    """What must be equal to what, when gold or answer is an equation; empty when they cannot match."""
    if "," in gold or "," in answer:
        return [(gold, answer)] if _keeps_form(gold, answer) else []
    wanted, given = ([side.strip() for side in _EQUALS.split(text)] for text in (gold, answer))
    gold_is_named, answer_is_named = (len(s) > 1 and bool(_NAME.fullmatch(s[0])) for s in (wanted, given))
    if gold_is_named and (answer_is_named or len(given) == 1):
        if answer_is_named and squeeze(wanted[0]) != squeeze(given[0]):
            return []
        return [(wanted[-1], side) for side in (given[1:] if answer_is_named else given)]
    if gold_is_named:
        return []
    if len(wanted) == 1:
        return [(gold, side) for side in (given[1:] if answer_is_named else given)]
    return [(gold, answer)] if len(given) > 1 else []


def _keeps_form(gold: str, answer: str) -> bool:
    """A list of solutions is not met by the equation that it solves."""
    return not ("," in gold and "," not in answer and "=" in gold and "=" in answer and "\\pm" not in answer)


def _same_kind(gold: str, wanted: Written, answer: str, given: Written) -> bool:
    """A whole number is not written in per cent: neither 42 \\% nor 4200 \\% is meant by 42."""
    if ("\\%" in gold) == ("\\%" in answer):
        return True
    return (given if "\\%" in gold else wanted).value.denominator != 1


def _same_value(gold: str, answer: str) -> bool:
    if squeeze(gold) == squeeze(answer):
        return True
    wanted, given = parse_number(gold), parse_number(answer)
    if wanted is not None and given is not None:
        return _same_kind(gold, wanted, answer, given) and same_number(wanted, given)
    if _LITERAL.search(gold) or _LITERAL.search(answer) or not answer:
        return False
    from rewards.checkers import symbolic

    return symbolic.same_expression(gold, answer)

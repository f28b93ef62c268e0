"""Exact values of written numbers: integers, decimals, fractions, mixed and scientific numbers, per cent.

Two numbers are equal when their exact values are. One exception, which the caller may switch off: a decimal with
enough significant digits stands for a fraction that no decimal can write (1/12), when it is that fraction rounded
or cut off at its last digit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_MAX_DIGITS = 400
_MAX_EXPONENT = 400
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_IN_WORDS = re.compile(
    rf"(?P<number>.*[0-9]) ?(?:\\text ?\{{ ?)?(?P<scale>{'|'.join(_SCALES)})(?: ?\}})?", re.IGNORECASE
)
_SPACED = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_PLAIN = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_EXPONENT = r"\^ ?(?:\{ ?([+-]?[0-9]{1,4}) ?\}|([0-9]))"
_DECIMAL = re.compile(rf"({_PLAIN})(?:[eE]([+-]?[0-9]{{1,4}})|(?: ?(?:\\times|\\cdot|\*|x) ?10 ?{_EXPONENT}))?")
_POWER_OF_TEN = re.compile(rf"10 ?{_EXPONENT}")
_FRACTION = re.compile(rf"\\frac ?(?:\{{ ?({_PLAIN}) ?\}}|([0-9])) ?(?:\{{ ?({_PLAIN}) ?\}}|([0-9]))")
_SLASH = re.compile(rf"({_PLAIN}) ?(?:/|\\div) ?({_PLAIN})")
_REPEATING = re.compile(r"([0-9]{0,30})\.([0-9]{0,30}) ?\\(?:overline|bar) ?\{ ?([0-9]{1,30}) ?\}")
_MIXED = re.compile(r"([0-9]+) ?(\\frac.*|(?<= )[0-9]+ ?/ ?[0-9]+)")


@dataclass(frozen=True)
class Written:
    """A number as it was written."""

    value: Fraction
    last_digit: Fraction | None = None
    """What one unit of the last decimal is worth: 0.01 for ``3.14``. None for fractions, which are exact."""
    num_digits: int = 0
    """Significant digits of a decimal."""
    is_reduced: bool = True
    """False for a fraction whose parts have a common factor, or whose denominator is 1."""

    def is_long(self, min_digits: int | None) -> bool:
        """Whether this is a decimal with enough digits to stand for a number that no decimal can write."""
        return (
            min_digits is not None
            and self.last_digit is not None
            and self.last_digit < 1
            and self.num_digits >= min_digits
        )


def same_number(gold: Written, answer: Written, min_digits: int | None) -> bool:
    """Equal by value, or the one a decimal of the other with at least `min_digits` digits (None: never)."""
    if gold.value == answer.value:
        return True
    return _is_decimal_of(answer, gold, min_digits) or _is_decimal_of(gold, answer, min_digits)


def _is_decimal_of(decimal: Written, fraction: Written, min_digits: int | None) -> bool:
    if decimal.last_digit is None or fraction.last_digit is not None or not decimal.is_long(min_digits):
        return False
    return not _terminates(fraction.value) and abs(decimal.value - fraction.value) < decimal.last_digit


def _terminates(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def read_number(text: str) -> Written | None:
    """The number that normalised LaTeX `text` writes, or None when it is anything else."""
    if len(text) > _MAX_DIGITS:
        return None
    text = text.strip()
    percent = text.endswith("\\%")
    body = text.removesuffix("\\%").strip() if percent else text
    negative = body.startswith("-")
    written = _unsigned(body[1:].strip() if body[:1] in "+-" else body)
    if written is None:
        return None
    scale = Fraction(-1 if negative else 1, 100 if percent else 1)
    last_digit = None if written.last_digit is None else written.last_digit * abs(scale)
    return Written(written.value * scale, last_digit, written.num_digits, written.is_reduced)


def _unsigned(text: str) -> Written | None:
    if match := _IN_WORDS.fullmatch(text):
        number, scale = _unsigned(match["number"]), Fraction(10) ** _SCALES[match["scale"].lower()]
        return None if number is None else Written(number.value * scale)
    if _SPACED.fullmatch(text):
        return _decimal(text.replace(" ", ""), 0)
    if match := _POWER_OF_TEN.fullmatch(text):
        return _power_of_ten(int(match[1] or match[2]))
    if match := _DECIMAL.fullmatch(text):
        return _decimal(match[1], int(match[2] or match[3] or match[4] or 0))
    if match := _REPEATING.fullmatch(text):
        return _repeating(match[1], match[2], match[3])
    if match := _FRACTION.fullmatch(text):
        return _quotient(match[1] or match[2], match[3] or match[4])
    if match := _SLASH.fullmatch(text):
        return _quotient(match[1], match[2])
    if match := _MIXED.fullmatch(text):
        part = _unsigned(match[2].strip())
        return None if part is None else Written(int(match[1]) + part.value, is_reduced=part.is_reduced)
    return None


def _power_of_ten(exponent: int) -> Written | None:
    return None if abs(exponent) > _MAX_EXPONENT else Written(Fraction(10) ** exponent)


def _decimal(digits: str, exponent: int) -> Written | None:
    if abs(exponent) > _MAX_EXPONENT:
        return None
    whole, _, decimals = digits.replace(",", "").partition(".")
    last_digit = Fraction(10) ** (exponent - len(decimals))
    value = int(whole + decimals) * last_digit
    return Written(value, last_digit, len((whole + decimals).lstrip("0")))


def _repeating(whole: str, fixed: str, period: str) -> Written:
    """``0.1\\overline{6}`` is ``0.1 + 6 / 90``."""
    start = Fraction(int(whole + fixed or 0), 10 ** len(fixed))
    return Written(start + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed)))


def _quotient(numerator: str, denominator: str) -> Written | None:
    top, bottom = _decimal(numerator, 0), _decimal(denominator, 0)
    if top is None or bottom is None or bottom.value == 0:
        return None
    value = top.value / bottom.value
    return Written(value, is_reduced=bottom.value != 1 and value.denominator == bottom.value)

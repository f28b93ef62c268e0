"""One spelling for what means the same: the first step of the math checker, on gold and answer alike.

Only the writing changes here, never the value. No step needs more than one pass over the text.
"""

from __future__ import annotations

import re
import unicodedata

_GREEK_AND_SIGNS = "πθαβ∞±×÷·⋅≤≥≠≈∪∩∈∅"  # noqa: RUF001
_NAMES = "pi,theta,alpha,beta,infty,pm,times,div,cdot,cdot,le,ge,ne,approx,cup,cap,in,emptyset"
_FRACTIONS = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅛": (1, 8)}
_SYMBOLS = {
    **{character: f"\\{name} " for character, name in zip(_GREEK_AND_SIGNS, _NAMES.split(","), strict=True)},
    **{character: f"\\frac{{{n}}}{{{d}}}" for character, (n, d) in _FRACTIONS.items()},
    **{character: f"^{{{digit}}}" for digit, character in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **dict.fromkeys("°º˚", "^\\circ "),
    **dict.fromkeys("−–‐‑", "-"),  # noqa: RUF001
}
_SYMBOL_TABLE = str.maketrans(_SYMBOLS)

_SAME = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"√\s*([0-9A-Za-z]+|\{[^{}]*\})", r"\\sqrt{\1}"),
        (r"√\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt{\{([^{}]*)\}}", r"\\sqrt{\1}"),
        (r"\\(?:left|right|displaystyle|textstyle|limits|bigl|bigr|Bigl|Bigr|big|Big)(?![A-Za-z])\s*", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"(?<=\d)(?:\{,\}|,?\\!\s*,?\\?!?|,\\!)\s*(?=\d{3}(?!\d))", ""),
        (r"(?<!\\)\\(?:[!,;:]|quad(?![A-Za-z])|qquad(?![A-Za-z])|(?=\s|$))|~", " "),
        (r"\\(?:mathrm|textrm|textbf|mathbf|mathit|textit|operatorname|mbox|text)\s*\{\s*i\s*\}", "i"),
        (r"(?:,\s*)?\\(?:text|textrm|textbf|textit|mathrm|mathbf|mbox)\s*\{\s*(?:and|or)\s*\}", ","),
        (r"\\(?:textrm|textbf|textit|mathrm|mathbf|mathsf|mbox|textsf)(?![A-Za-z])", r"\\text"),
        (r"(?:,\s*)?\b(?:and|or)\b", ","),
        (r"(?:\\?%|\b(?:percentage|percent|pct)\b\.?)", r"\\%"),
        (r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree\b", r"^\\circ "),
        (r"\\leq?(?![A-Za-z])|\\leqslant|<=", r"\\le "),
        (r"\\geq?(?![A-Za-z])|\\geqslant|>=", r"\\ge "),
        (r"\\neq?(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\begin\{[bpvB]matrix\}", r"\\begin{pmatrix}"),
        (r"\\end\{[bpvB]matrix\}", r"\\end{pmatrix}"),
        (r"\bsqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\s+", " "),
    )
]
_WRAPPED = re.compile(
    r"\$\$?([^$]*)\$?\$?|\\\((.*)\\\)|\\\[(.*)\\\]|"
    r"\\(?:boxed|fbox) ?\{(.*)\}|\\text ?\{([^{}]*)\}|\{([^{}]*)\}",
    re.DOTALL,
)
_SPACE = re.compile(r"(\\[A-Za-z]+) (?=[A-Za-z])|\s+")
_MAX_WRAPPERS = 8


def normalize(text: str) -> str:
    """The text in one spelling: LaTeX for Unicode symbols, no spacing commands, no outer wrappers."""
    text = unicodedata.normalize("NFKC", text.translate(_SYMBOL_TABLE)).strip()
    text = text.removeprefix("\\$").strip()
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    return _unwrap(text)


def _unwrap(text: str) -> str:
    """Without delimiters, boxes or braces around the whole, nor a full stop or a stray dollar behind it."""
    for _ in range(_MAX_WRAPPERS):
        before = text
        text = text.strip().rstrip("$.;,").strip() if not text.startswith("$") else text.strip(" .;,")
        wrapped = _WRAPPED.fullmatch(text)
        if wrapped is not None and _is_balanced(inner := next(filter(None, wrapped.groups()), "")):
            is_set = text.startswith("{") and "," in inner
            text = f"\\{{{inner}\\}}" if is_set else inner
        if text == before or text.startswith("\\{"):
            break
    return text


def _is_balanced(text: str) -> bool:
    """Whether the braces of `text` close inside it, so that what was taken off around it was one pair."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def squeeze(text: str) -> str:
    """`text` without the blanks that carry no meaning; for comparing strings only."""
    return _SPACE.sub(lambda match: f"{match[1]} " if match[1] else "", text)

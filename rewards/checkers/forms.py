"""What an answer is made of: lists, brackets, equations, inequalities, matrices. Text in, pieces of text out.

Everything here reads normalised LaTeX (`normalize`) in time linear in the text, and computes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r"\\begin\{[a-z]+\}|\\end\{[a-z]+\}|\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = frozenset(("(", "[", "{", "\\{", "\\langle", "\\lfloor", "\\lceil"))
_CLOSING = frozenset((")", "]", "}", "\\}", "\\rangle", "\\rfloor", "\\rceil"))
_BRACKETS = {"(": "()", "[": "[]", "\\{": "{}", "\\langle": "<>"}
_CLOSERS = {")", "]", "\\}", "\\rangle"}
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_RELATIONS = ("\\le", "\\ge", "<", ">", "\\ne", "\\in", "\\approx", "\\equiv")
FLIPPED = {"\\le": "\\ge", "\\ge": "\\le", "<": ">", ">": "<"}
_VARIABLE = re.compile(r"\\?[A-Za-z]+(?:_(?:\{[\w+-]+\}|\w))?'*(?: ?\( ?[A-Za-z](?: ?, ?[A-Za-z])* ?\))?")
_NAME_WORDS = re.compile(r"(?:\\(?:angle|overline|triangle|text|vec|hat|bar|mathbb|sum) ?)?[\\A-Za-z_{}:'|, ()]+")
_NO_NAME = re.compile(
    r"\\(?:sqrt|log|ln|exp|frac|cdot|times|div|sin|cos|tan|pi|infty|sum|prod|int|lim|pm|mp|lor)(?![A-Za-z])"
    r"|^ ?[ei] ?$|\b(?:not|no|is|isn)\b"
)
"""Constants, operations and statements: a number is not given the value of these."""
_CALL = re.compile(
    r"[A-Za-z]'{0,2}(?:_\w)? ?\( ?[-+]?[\w.,=<>^ {}\\|]+ ?\)|\|[A-Z]{2}\||\[[A-Z]{3,}\]|[A-Z]{2}\^2|[A-Z]\^\{-1\}"
    r"|(?:[A-Za-df-hj-z](?:_\w)?(?: ?[-+*] ?|\\cdot)?)+"
)


@dataclass(frozen=True)
class Collection:
    """Items between brackets: ``()``, ``[]``, ``[)``, ``(]``, ``{}``, ``<>``, or ``""`` for a bare list."""

    brackets: str
    items: tuple[str, ...]

    @property
    def is_interval(self) -> bool:
        return len(self.items) == 2 and self.brackets in ("()", "[]", "[)", "(]")


def tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Each token with its position and the number of brackets that are open around it."""
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _CLOSING or token.startswith("\\end"):
            depth = max(0, depth - 1)
        yield token, match.start(), depth
        if token in _OPENING or token.startswith("\\begin"):
            depth += 1


def split_top(text: str, separators: tuple[str, ...]) -> list[str]:
    """The stripped pieces of `text` between separators that stand outside all brackets."""
    pieces, start = [], 0
    for token, position, depth in tokens(text):
        if depth == 0 and token in separators:
            pieces.append(text[start:position].strip())
            start = position + len(token)
    return [*pieces, text[start:].strip()]


def split_items(text: str) -> list[str]:
    """The items of a bare list. ``1,234`` is one number, not two: a list of two would be ``1, 234``."""
    if "," in text and ";" not in text and "(" not in text:
        text = _without_grouping(text)
    return [item for item in split_top(text, (",", ";", "\\lor")) if item] or [text]


def _without_grouping(text: str) -> str:
    return _GROUPED.sub(lambda number: number[0].replace(",", ""), text)


def read_collection(text: str) -> Collection | None:
    """The items of a bracketed or bare list, or None when the text is a single thing."""
    items = split_items(text)
    if len(items) > 1:
        return Collection("", tuple(items))
    found = bracketed(text)
    if found is None:
        return None
    brackets, inner = found
    if brackets == "{}" and any(token in ("\\mid", "|", ":") for token, _, depth in tokens(inner) if depth == 0):
        return None
    items = split_top(_without_grouping(inner) if ", " in inner else inner, (",", ";"))
    if not all(items) or (len(items) == 1 and brackets != "{}"):
        return None
    return Collection(brackets, tuple(items))


def bracketed(text: str) -> tuple[str, str] | None:
    """Kind and inside of the one pair of brackets that holds the whole text."""
    found = list(tokens(text))
    if len(found) < 3 or found[0][0] not in _BRACKETS or found[-1][0] not in _CLOSERS:
        return None
    if any(depth == 0 for _, _, depth in found[1:-1]):
        return None
    closing = {"\\}": "}", "\\rangle": ">"}.get(found[-1][0], found[-1][0])
    return _BRACKETS[found[0][0]][0] + closing, text[found[1][1] : found[-1][1]]


def without_parentheses(text: str) -> str:
    """``(7)`` is 7."""
    found = bracketed(text)
    while found is not None and found[0] == "()" and len(split_top(found[1], (",", ";", "\\lor"))) == 1:
        text = found[1].strip()
        found = bracketed(text)
    return text


def sides(text: str) -> list[str]:
    """What stands between the equals signs outside all brackets."""
    return split_top(text, ("=",))


def is_variable(text: str) -> bool:
    """A single letter or word that can take values: no constant."""
    return bool(_VARIABLE.fullmatch(text)) and text not in ("\\pi", "\\infty", "e")


def is_name(text: str) -> bool:
    """A variable, or a function of variables: what an answer is given for (``x``, ``a_n``, ``f(x)``, ``(x, y)``)."""
    if found := bracketed(text):
        return found[0] == "()" and all(_VARIABLE.fullmatch(item) for item in split_items(found[1]))
    return bool(_VARIABLE.fullmatch(text) or _NAME_WORDS.fullmatch(text)) and not _NO_NAME.search(text)


def is_quantity(text: str) -> bool:
    """What a number can be the value of: a name, a call such as ``f(2)``, a sum of letters such as ``m + n``."""
    return is_name(text) or bool(_CALL.fullmatch(text))


def relation_parts(text: str) -> tuple[list[str], list[str]]:
    """The sides of a chain of relations and the relations between them, outside all brackets."""
    pieces, relations, start = [], [], 0
    for token, position, depth in tokens(text):
        if depth == 0 and token in _RELATIONS:
            pieces.append(text[start:position].strip())
            relations.append(token)
            start = position + len(token)
    return [*pieces, text[start:].strip()], relations


def read_matrix(text: str) -> list[list[str]] | None:
    """The cells of a single matrix, row by row."""
    if not text.startswith("\\begin{pmatrix}") or not text.endswith("\\end{pmatrix}"):
        return None
    inner = text.removeprefix("\\begin{pmatrix}").removesuffix("\\end{pmatrix}")
    if "\\begin" in inner:
        return None
    rows = [row for row in split_top(inner, ("\\\\",)) if row]
    return [split_top(row, ("&",)) for row in rows]


def with_both_signs(text: str) -> list[str]:
    """``1 \\pm \\sqrt{2}`` is two answers; anything else is itself."""
    if text.count("\\pm") + text.count("\\mp") != 1:
        return [text]
    sign = "\\pm" if "\\pm" in text else "\\mp"
    before, _, after = text.partition(sign)
    plus = "+" if before.strip() and before.strip()[-1] not in "([{=" else ""
    return [f"{before}{plus}{after}".strip(), f"{before}-{after}".strip()]

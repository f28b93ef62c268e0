"""Boxes in LaTeX: where ``\\boxed{…}`` and ``\\fbox{…}`` stand, which of them are one list, and the sign in front.

All functions take time linear in the text.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

MAX_NESTED_BOXES = 8
CODE_FENCES = ("```", "~~~")

_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)[ \t\n]{0,8}(?=\{)|\\.|[{}]", re.DOTALL)
_NAME = r"[A-Za-z](?:_\{?\w\}?)?"
_LIST_SEPARATOR = re.compile(
    rf"(?:[ \t$,;~]|\\[()\[\],;!]|\\q?quad|\\text\s*\{{\s*(?:and|or)\s*\}}|\b(?:and|or)\b|{_NAME}[ \t]*=|[-\u2212])*"
)
"""What may stand between two boxes of one list: commas, "and", "or", and the name or sign of the second one."""
_NAME_IN_FRONT = re.compile(rf"(?:^|[\s$,;(]|\\[(\[])({_NAME})\s*=\s*(?:[-\u2212]\s*)?$")
_SIGN_IN_FRONT = re.compile(
    r"(?:^|[=$({\[,:;<>]|\\(?:approx|leq?|geq?|neq?|in)(?![a-z])|\\[(\[]|\b(?:is|equals|be|and|or)\b)\s*"
    r"(?P<sign>[-\u2212]|\\pm|\\mp)(?:\s|\\[,!]|\{|\\displaystyle|\\left|\()*$"
)
_BULLET_IN_FRONT = re.compile(r"(?:^|\n)[ \t]*[-\u2212][ \t]+$")
_SINGLE_TERM = re.compile(r"[^-+]*")
_CHARS_IN_FRONT = 32
"""How far in front of a box its name and sign are looked for."""
_MAX_SEPARATOR_CHARS = 60


@dataclass(frozen=True)
class Box:
    """The stripped content of a box, and where the box begins and its content ends."""

    content: str
    start: int
    end: int


def find_boxes(text: str) -> list[Box]:
    """The outermost balanced boxes of `text`, in their order."""
    found: list[tuple[int, int, int]] = []
    open_braces: list[tuple[int, int]] = []
    box_start = -1
    for token in _BOX_OR_BRACE.finditer(text):
        if token[0] == "{":
            open_braces.append((token.end(), box_start))
        elif token[0] == "}" and open_braces:
            start, began = open_braces.pop()
            if began >= 0:
                found = _without_inner(found, start)
                found.append((start, token.start(), began))
        box_start = token.start() if token[0].startswith(("\\boxed", "\\fbox")) else -1
    return [Box(text[start:end].strip(), began, end) for start, end, began in found]


def box_contents(text: str) -> list[str]:
    """The stripped contents of the outermost balanced boxes of `text`, in their order."""
    return [box.content for box in find_boxes(text)]


def outside_code_fences(text: str, boxes: list[Box]) -> list[Box]:
    """Those of the boxes of `text` that do not stand in a code fence."""
    for fence in CODE_FENCES:
        marks = [mark.start() for mark in re.finditer(fence, text)]
        boxes = [box for box in boxes if bisect(marks, box.start) % 2 == 0] if marks else boxes
    return boxes


def last_list(text: str, boxes: Sequence[Box]) -> Sequence[Box]:
    """The last box and those before it that are parted from it by commas, "and" or "or" alone."""
    first = len(boxes) - 1
    while first > 0:
        between = text[boxes[first - 1].end + 1 : boxes[first].start]
        if len(between) > _MAX_SEPARATOR_CHARS or not between or not _LIST_SEPARATOR.fullmatch(between):
            break
        first -= 1
    return boxes[first:]


def innermost(content: str) -> str | None:
    """``\\boxed{7}`` in a box is 7; None when more than `MAX_NESTED_BOXES` boxes stand inside each other."""
    for _ in range(MAX_NESTED_BOXES):
        if "\\boxed" not in content and "\\fbox" not in content:
            return content
        inner = box_contents(content)
        if not inner or not _is_one_box(content, inner[-1]):
            return content
        content = inner[-1]
    return None


def with_sign(text: str, box: Box, content: str) -> str:
    """The content with the sign that stands in front of the box; a dash that begins a line is a bullet."""
    before = _in_front_of(text, box)
    sign = _SIGN_IN_FRONT.search(before)
    if sign is None or _BULLET_IN_FRONT.search(before):
        return content
    written = content if _SINGLE_TERM.fullmatch(content) else f"({content})"
    return f"{sign['sign']} {written}" if "\\" in sign["sign"] else f"-{written}"


def with_name_and_sign(text: str, box: Box) -> str:
    """The content of a box with the name, if any, that it is given to in front of it: ``x = 2``."""
    name = _NAME_IN_FRONT.search(_in_front_of(text, box))
    signed = with_sign(text, box, box.content)
    return f"{name[1]} = {signed}" if name else signed


def _in_front_of(text: str, box: Box) -> str:
    return text[max(0, box.start - _CHARS_IN_FRONT) : box.start]


def _is_one_box(text: str, content: str) -> bool:
    return text.replace(" ", "") in (f"{box}{{{content}}}".replace(" ", "") for box in ("\\boxed", "\\fbox"))


def _without_inner(found: list[tuple[int, int, int]], start: int) -> list[tuple[int, int, int]]:
    """Drop the boxes that lie inside the one that began at `start`; each box is dropped at most once."""
    while found and found[-1][0] >= start:
        found.pop()
    return found

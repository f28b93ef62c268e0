"""What is the answer of this completion? Strict on purpose: every leniency here is one a policy learns to
use.

All functions take time linear in the text: they run in the trainer's process on whatever the model wrote.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.answer_policy import SeveralBoxes
from rewards.records import AnswerStyle, Outcome

THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)[ \t\n]{0,8}(?=\{)|\\.|[{}]", re.DOTALL)
_MAX_NESTED_BOXES = 8
_FENCES = ("```", "~~~")
_NAME = r"[A-Za-z](?:_\{?\w\}?)?"
_JOIN = re.compile(
    rf"(?:[ \t$,;~]|\\[()\[\],;!]|\\q?quad|\\text\s*\{{\s*(?:and|or)\s*\}}|\b(?:and|or)\b|{_NAME}[ \t]*=|[-\u2212])*"
)
_NAMED = re.compile(rf"(?:^|[\s$,;(]|\\[(\[])({_NAME})\s*=\s*(?:[-\u2212]\s*)?$")
_SIGN = re.compile(
    r"(?:^|[=$({\[,:;<>]|\\(?:approx|leq?|geq?|neq?|in)(?![a-z])|\\[(\[]|\b(?:is|equals|be|and|or)\b)\s*"
    r"(?P<sign>[-\u2212]|\\pm|\\mp)(?:\s|\\[,!]|\{|\\displaystyle|\\left|\()*$"
)
_BULLET = re.compile(r"(?:^|\n)[ \t]*[-\u2212][ \t]+$")
_SINGLE_TERM = re.compile(r"[^-+]*")
_BEFORE_BOX = 32
_LONGEST_JOIN = 60


@dataclass(frozen=True)
class Extracted:
    """The answer, or why there is none: `outcome` is then NO_ANSWER or MALFORMED and `reason` a few words."""

    answer: str | None
    outcome: Outcome | None = None
    reason: str = ""


@dataclass(frozen=True)
class Box:
    """The stripped content of a box, and where the box begins and its content ends."""

    content: str
    start: int
    end: int


def extract(text: str, opens_think: bool, answer_style: AnswerStyle, several_boxes: SeveralBoxes = "list") -> Extracted:
    """The answer of a completion.

    Only what follows the last ``</think>`` is read. A completion that never ends its thinking has no answer;
    one without any thinking is read whole (its form is the format reward's business). Then

    * ``tags``: there must be exactly one ``<answer>…</answer>``, outside code fences. The answer is its last
      balanced ``\\boxed{}`` if it has one, else the stripped text;
    * ``boxed``: the answer is the content of the last balanced ``\\boxed{}`` or ``\\fbox{}``.

    What is done with several boxes is a policy: see `AnswerPolicy.several_boxes`. A minus sign in front of a box
    belongs to the answer.
    """
    tail = after_thinking(text, opens_think)
    if tail is None:
        return _no_answer("the thinking never ends")
    found = _from_box(tail, several_boxes) if answer_style == "boxed" else _from_tags(tail, several_boxes)
    mark = "\\boxed" if answer_style == "boxed" else ANSWER
    if found.outcome is Outcome.NO_ANSWER and mark in text[: len(text) - len(tail)] and mark not in tail:
        return _no_answer("the answer stands only in the thinking")
    return found


def after_thinking(text: str, opens_think: bool) -> str | None:
    """What follows the last ``</think>``; None when the text ends while still thinking."""
    _, end, tail = text.rpartition(END_THINK)
    if THINK in tail or (opens_think and not end):
        return None
    return tail


def _no_answer(reason: str) -> Extracted:
    return Extracted(None, Outcome.NO_ANSWER, reason)


def _from_tags(tail: str, several_boxes: SeveralBoxes) -> Extracted:
    counts = tail.count(ANSWER), tail.count(END_ANSWER)
    if counts == (0, 0):
        return _no_answer("no answer block")
    if counts != (1, 1) or tail.index(ANSWER) > tail.index(END_ANSWER):
        return _no_answer(f"{counts[0]} <answer> and {counts[1]} </answer>, or in the wrong order")
    before, _, rest = tail.partition(ANSWER)
    if _in_fence(before):
        return _no_answer("the answer block stands in a code fence")
    block = rest.partition(END_ANSWER)[0].strip()
    if "\\boxed" in block:
        return _from_box(block, several_boxes)
    return Extracted(block) if block else _no_answer("the answer block is empty")


def _from_box(text: str, several_boxes: SeveralBoxes) -> Extracted:
    all_boxes = box_spans(text)
    boxes = _outside_fences(text, all_boxes)
    if not boxes:
        return _no_answer("the box stands in a code fence" if all_boxes else "no balanced box")
    if several_boxes == "refuse" and (num := len({box.content for box in boxes})) > 1:
        return _no_answer(f"{num} different boxes")
    joined = _joined_at_the_end(text, boxes) if several_boxes == "list" else boxes[-1:]
    if len({box.content for box in joined}) > 1:
        return Extracted(", ".join(_named_and_signed(text, box) for box in joined))
    content = _innermost(boxes[-1].content)
    if content is None:
        reason = f"more than {_MAX_NESTED_BOXES} boxes inside each other"
        return Extracted(None, Outcome.MALFORMED, reason)
    if not content:
        return _no_answer("the box is empty")
    return Extracted(_signed(text, boxes[-1], content))


def _signed(text: str, box: Box, content: str) -> str:
    """The content with the sign that stands in front of the box; a dash that begins a line is a bullet."""
    before = _in_front_of(text, box)
    sign = _SIGN.search(before)
    if sign is None or _BULLET.search(before):
        return content
    written = content if _SINGLE_TERM.fullmatch(content) else f"({content})"
    return f"{sign['sign']} {written}" if "\\" in sign["sign"] else f"-{written}"


def _in_front_of(text: str, box: Box) -> str:
    return text[max(0, box.start - _BEFORE_BOX) : box.start]


def _named_and_signed(text: str, box: Box) -> str:
    name = _NAMED.search(_in_front_of(text, box))
    signed = _signed(text, box, box.content)
    return f"{name[1]} = {signed}" if name else signed


def _in_fence(before: str) -> bool:
    """Whether what follows `before` stands in a code fence."""
    return any(before.count(fence) % 2 for fence in _FENCES)


def _outside_fences(text: str, boxes: list[Box]) -> list[Box]:
    for fence in _FENCES:
        marks = [mark.start() for mark in re.finditer(fence, text)]
        boxes = [box for box in boxes if bisect(marks, box.start) % 2 == 0] if marks else boxes
    return boxes


def _joined_at_the_end(text: str, boxes: Sequence[Box]) -> Sequence[Box]:
    """The last box and those before it that are parted from it by commas, "and" or "or" alone."""
    first = len(boxes) - 1
    while first > 0:
        between = text[boxes[first - 1].end + 1 : boxes[first].start]
        if len(between) > _LONGEST_JOIN or not between or not _JOIN.fullmatch(between):
            break
        first -= 1
    return boxes[first:]


def _innermost(content: str) -> str | None:
    """``\\boxed{7}`` in a box is 7; None when boxes are nested too deep."""
    for _ in range(_MAX_NESTED_BOXES):
        if "\\boxed" not in content and "\\fbox" not in content:
            return content
        inner = find_boxes(content)
        if not inner or not _is_one_box(content, inner[-1]):
            return content
        content = inner[-1]
    return None


def _is_one_box(text: str, content: str) -> bool:
    return text.replace(" ", "") in (f"{box}{{{content}}}".replace(" ", "") for box in ("\\boxed", "\\fbox"))


def find_boxes(text: str) -> list[str]:
    """The stripped contents of the outermost balanced boxes of `text`, in their order."""
    return [box.content for box in box_spans(text)]


def box_spans(text: str) -> list[Box]:
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


def _without_inner(found: list[tuple[int, int, int]], start: int) -> list[tuple[int, int, int]]:
    """Drop the boxes that lie inside the one that began at `start`; each box is dropped at most once."""
    while found and found[-1][0] >= start:
        found.pop()
    return found

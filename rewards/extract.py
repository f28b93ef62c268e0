"""What is the answer of this completion? Strict on purpose: every leniency here is one a policy learns to
use.

All functions take time linear in the text: they run in the trainer's process on whatever the model wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.types import AnswerStyle, Outcome

THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)[ \t\n]{0,8}(?=\{)|\\.|[{}]", re.DOTALL)
_MAX_NESTED_BOXES = 8


@dataclass(frozen=True)
class Extracted:
    """The answer, or why there is none: `outcome` is then NO_ANSWER or MALFORMED and `reason` a few words."""

    answer: str | None
    outcome: Outcome | None = None
    reason: str = ""


def extract(text: str, opens_think: bool, answer_style: AnswerStyle) -> Extracted:
    """The answer of a completion.

    Only what follows the last ``</think>`` is read. A completion that never ends its thinking has no answer;
    one without any thinking is read whole (its form is the format reward's business). Then

    * ``tags``: there must be exactly one ``<answer>…</answer>``, outside code fences. The answer is its last
      balanced ``\\boxed{}`` if it has one, else the stripped text;
    * ``boxed``: the answer is the content of the last balanced ``\\boxed{}`` or ``\\fbox{}``.
    """
    tail = after_thinking(text, opens_think)
    if tail is None:
        return _no_answer("the thinking never ends")
    return _from_box(tail) if answer_style == "boxed" else _from_tags(tail)


def after_thinking(text: str, opens_think: bool) -> str | None:
    """What follows the last ``</think>``; None when the text ends while still thinking."""
    _, end, tail = text.rpartition(END_THINK)
    if THINK in tail or (opens_think and not end):
        return None
    return tail


def _no_answer(reason: str) -> Extracted:
    return Extracted(None, Outcome.NO_ANSWER, reason)


def _malformed(reason: str) -> Extracted:
    return Extracted(None, Outcome.MALFORMED, reason)


def _from_tags(tail: str) -> Extracted:
    counts = tail.count(ANSWER), tail.count(END_ANSWER)
    if counts == (0, 0):
        return _no_answer("no answer block")
    if counts != (1, 1) or tail.index(ANSWER) > tail.index(END_ANSWER):
        return _malformed(f"{counts[0]} <answer> and {counts[1]} </answer>, or in the wrong order")
    before, _, rest = tail.partition(ANSWER)
    if before.count("```") % 2:
        return _no_answer("the answer block stands in a code fence")
    block = rest.partition(END_ANSWER)[0].strip()
    if "\\boxed" in block:
        return _from_box(block)
    return Extracted(block) if block else _no_answer("the answer block is empty")


def _from_box(text: str) -> Extracted:
    boxes = find_boxes(text)
    if not boxes:
        return _no_answer("no balanced box")
    content = boxes[-1]
    for _ in range(_MAX_NESTED_BOXES):
        inner = find_boxes(content)
        if not inner or not _is_one_box(content, inner[-1]):
            return Extracted(content) if content else _no_answer("the box is empty")
        content = inner[-1]
    return _malformed(f"more than {_MAX_NESTED_BOXES} boxes inside each other")


def _is_one_box(text: str, content: str) -> bool:
    return text.replace(" ", "") in (f"{box}{{{content}}}".replace(" ", "") for box in ("\\boxed", "\\fbox"))


def find_boxes(text: str) -> list[str]:
    """The stripped contents of the outermost balanced boxes of `text`, in their order."""
    found: list[tuple[int, int]] = []
    open_braces: list[tuple[int, bool]] = []
    box_is_next = False
    for token in _BOX_OR_BRACE.finditer(text):
        if token[0] == "{":
            open_braces.append((token.end(), box_is_next))
        elif token[0] == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box:
                found = _without_inner(found, start)
                found.append((start, token.start()))
        box_is_next = token[0].startswith(("\\boxed", "\\fbox"))
    return [text[start:end].strip() for start, end in found]


def _without_inner(found: list[tuple[int, int]], start: int) -> list[tuple[int, int]]:
    """Drop the boxes that lie inside the one that began at `start`; each box is dropped at most once."""
    while found and found[-1][0] >= start:
        found.pop()
    return found

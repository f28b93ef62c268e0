"""The answer of a completion. Strict on purpose: whatever is forgiven here, a policy learns to make use of.

All functions take time linear in the text: they run in the trainer's process on whatever the model wrote.
"""

from __future__ import annotations

from dataclasses import dataclass

from rewards.answer_policy import SeveralBoxes
from rewards.answers.boxes import (
    CODE_FENCES,
    MAX_NESTED_BOXES,
    find_boxes,
    innermost,
    last_list,
    outside_code_fences,
    with_name_and_sign,
    with_sign,
)
from rewards.records import AnswerStyle, Outcome

THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"


@dataclass(frozen=True)
class Extracted:
    """The answer, or why there is none: `outcome` is then NO_ANSWER or MALFORMED and `reason` a few words."""

    answer: str | None
    outcome: Outcome | None = None
    reason: str = ""


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
    if _ends_in_code_fence(before):
        return _no_answer("the answer block stands in a code fence")
    block = rest.partition(END_ANSWER)[0].strip()
    if "\\boxed" in block:
        return _from_box(block, several_boxes)
    return Extracted(block) if block else _no_answer("the answer block is empty")


def _from_box(text: str, several_boxes: SeveralBoxes) -> Extracted:
    all_boxes = find_boxes(text)
    boxes = outside_code_fences(text, all_boxes)
    if not boxes:
        return _no_answer("the box stands in a code fence" if all_boxes else "no balanced box")
    if several_boxes == "refuse" and (num := len({box.content for box in boxes})) > 1:
        return _no_answer(f"{num} different boxes")
    listed = last_list(text, boxes) if several_boxes == "list" else boxes[-1:]
    if len({box.content for box in listed}) > 1:
        return Extracted(", ".join(with_name_and_sign(text, box) for box in listed))
    content = innermost(boxes[-1].content)
    if content is None:
        return Extracted(None, Outcome.MALFORMED, f"more than {MAX_NESTED_BOXES} boxes inside each other")
    if not content:
        return _no_answer("the box is empty")
    return Extracted(with_sign(text, boxes[-1], content))


def _ends_in_code_fence(text: str) -> bool:
    """Whether a fence is still open at the end of `text`."""
    return any(text.count(fence) % 2 for fence in CODE_FENCES)

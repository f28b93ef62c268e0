"""Does the completion have the form that was asked for? Says nothing about whether the answer is right."""

from __future__ import annotations

from rewards.extract import ANSWER, END_ANSWER, END_THINK, THINK, after_thinking, find_boxes
from rewards.options import FormatOptions
from rewards.types import AnswerStyle, Response, ScoreRequest

_TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)


def format_reward(request: ScoreRequest, options: FormatOptions) -> list[float]:
    """1.0 for a well-formed completion, else 0.0; with ``partial: true`` tagged answers get `partial_credit`.

    There is no partial credit for boxed answers.
    """
    if options.partial and request.answer_style == "tags":
        return [partial_credit(response, request.opens_think) for response in request.responses]
    style, opens_think = request.answer_style, request.opens_think
    return [float(is_well_formed(response, opens_think, style)) for response in request.responses]


def is_well_formed(response: Response, opens_think: bool, answer_style: AnswerStyle) -> bool:
    """The strict form.

    ``tags``: ``<think>…</think>`` and then ``<answer>…</answer>``: each tag exactly once, neither block
    empty, nothing but white space before, between and after. When the prompt already opened ``<think>``, the
    completion starts inside the thinking and must not open it again. ``boxed``: exactly one box after the
    thinking, balanced and not empty. A completion that the length limit cut off is never well formed.
    """
    if response.truncated:
        return False
    if answer_style == "boxed":
        return _has_one_box(response.text, opens_think)
    return _has_both_blocks(THINK + response.text if opens_think else response.text)


def _has_one_box(text: str, opens_think: bool) -> bool:
    tail = after_thinking(text, opens_think)
    boxes = find_boxes(tail) if tail is not None else []
    return len(boxes) == 1 and bool(boxes[0])


def _has_both_blocks(text: str) -> bool:
    if any(text.count(tag) != 1 for tag in _TAGS):
        return False
    before, _, rest = text.partition(THINK)
    thinking, _, rest = rest.partition(END_THINK)
    between, _, rest = rest.partition(ANSWER)
    answer, end, after = rest.partition(END_ANSWER)
    blank = not (before.strip() or between.strip() or after.strip())
    return bool(blank and end and thinking.strip() and answer.strip())


def partial_credit(response: Response, opens_think: bool) -> float:
    """Per-tag credit: 1 if strictly well formed, else ``c / (n + 1)``.

    n is the number of tags that the completion has to write (4, or 3 when the prompt opened ``<think>``) and
    c how many of them it wrote exactly once and behind the ones before. So each tag is worth 0.2 (0.25), and
    the last step, from all tags to the strict form, as much again.
    """
    if is_well_formed(response, opens_think, "tags"):
        return 1.0
    tags = _TAGS[1:] if opens_think else _TAGS
    position, credit = 0, 0
    for tag in tags:
        place = response.text.find(tag, position)
        if place >= 0 and response.text.count(tag) == 1:
            position, credit = place + len(tag), credit + 1
    return credit / (len(tags) + 1)

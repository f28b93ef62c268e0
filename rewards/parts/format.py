"""Does the completion have the form that was asked for? Says nothing about whether the answer is right."""

from __future__ import annotations

from rewards.answers.boxes import box_contents
from rewards.answers.extract import ANSWER, END_ANSWER, END_THINK, THINK
from rewards.parts.options import FormatOptions
from rewards.records import AnswerStyle, Response, ScoreRequest

_TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)
_FENCE = "```"
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs that are drawn as nothing."""


def format_reward(request: ScoreRequest, options: FormatOptions) -> list[float]:
    """1.0 for a well-formed completion, else 0.0: the format reward of DeepSeek-R1 (arXiv 2501.12948, section 2.2.2).

    With ``partial: true`` tagged answers get `partial_credit`; there is no partial credit for boxed answers.
    """
    if options.partial and request.answer_style == "tags":
        return [partial_credit(response, request.opens_think) for response in request.responses]
    style, opens_think = request.answer_style, request.opens_think
    return [float(is_well_formed(response, opens_think, style)) for response in request.responses]


def is_well_formed(response: Response, opens_think: bool, answer_style: AnswerStyle) -> bool:
    """The strict form.

    ``tags``: ``<think>…</think>`` and then ``<answer>…</answer>``: each tag exactly once and outside code fences,
    neither block empty, nothing but white space before, between and after. When the prompt already opened ``<think>``,
    the completion starts inside the thinking and must not open it again. ``boxed``: exactly one box, balanced and not
    empty; thinking is optional unless the prompt opened it, and one well-formed block before the box. A completion
    that the length limit cut off is never well formed. A block of characters that cannot be seen is empty.
    """
    if response.truncated:
        return False
    text = THINK + response.text if opens_think else response.text
    return _has_one_box(text) if answer_style == "boxed" else _has_both_blocks(text)


def _has_one_box(text: str) -> bool:
    thinks = THINK in text or END_THINK in text
    tail = _behind_thinking(text) if thinks else text
    boxes = box_contents(tail) if tail is not None else []
    return len(boxes) == 1 and not _is_empty(boxes[0])


def _has_both_blocks(text: str) -> bool:
    tail = _behind_thinking(text)
    if tail is None or text.count(ANSWER) != 1 or text.count(END_ANSWER) != 1:
        return False
    between, opened, rest = tail.partition(ANSWER)
    answer, closed, after = rest.partition(END_ANSWER)
    return bool(opened and closed) and not (between.strip() or after.strip() or _is_empty(answer))


def _behind_thinking(text: str) -> str | None:
    """What follows the one thinking block at the start of `text`; None when it is not of the strict form."""
    if text.count(THINK) != 1 or text.count(END_THINK) != 1:
        return None
    before, _, rest = text.partition(THINK)
    thinking, closed, tail = rest.partition(END_THINK)
    if before.strip() or not closed or _is_empty(thinking) or thinking.count(_FENCE) % 2:
        return None
    return tail


def _is_empty(text: str) -> bool:
    seen = (character for character in text if character.isprintable() and not character.isspace())
    return all(character in _BLANKS for character in seen)


def partial_credit(response: Response, opens_think: bool) -> float:
    """Per-tag credit: 1 if strictly well formed, else ``c / (n + 1)``.

    n is the number of tags that the completion has to write (4, or 3 when the prompt opened ``<think>``) and
    c how many of them it wrote exactly once and behind the ones before. So each tag is worth 0.2 (0.25), and
    the last step, from all tags to the strict form, as much again.

    Where we differ: open-r1's tag count pays a quarter for each tag with its line breaks, in any order, so that all
    four in a heap are paid in full; here the order counts and the last fifth is for the strict form alone.
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

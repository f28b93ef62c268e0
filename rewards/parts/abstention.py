"""A scale on which saying "I don't know" beats a wrong answer and never a right one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.answers.extract import after_thinking
from rewards.parts.checked import CheckedResponse
from rewards.parts.format import is_well_formed
from rewards.parts.options import AbstentionOptions
from rewards.records import ScoreRequest

_MAX_CHARS = 200
_APOSTROPHE = re.compile("\\s*['\u2018\u2019\u02bc\u00b4`]\\s*")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{([^{}]*)\}")


def abstention_reward(
    request: ScoreRequest, checked: Sequence[CheckedResponse], options: AbstentionOptions
) -> list[float]:
    """``right > right with rubbish > abstained > wrong > wrong with rubbish``, one number for each.

    A finer form of the three-valued reward (right, abstained, wrong) that arXiv 2509.25760 (TruthRL) and 2601.20126
    train with. Rubbish is anything that makes the completion not well formed in the strict sense of the format
    reward. Abstaining is one of `phrases` as the whole answer, or as all that follows the thinking where there is no
    answer, in any case, with any apostrophe and with or without a final stop; its form does not matter. No answer,
    malformed answers, time-outs and crashes are wrong. All outcomes that are not a right answer are compared with
    the phrases, so a gold of "unknown" is answered right by "unknown".

    With the format gate, right answers with rubbish are wrong ones with rubbish.
    """
    phrases = {_normalised(phrase) for phrase in options.phrases}
    return [_paid(request, one, phrases, options) for one in checked]


def _paid(request: ScoreRequest, one: CheckedResponse, phrases: set[str], options: AbstentionOptions) -> float:
    if not one.is_right and _stated(request, one) in phrases:
        return options.abstained
    if is_well_formed(one.response, request.opens_think, request.answer_style):
        return options.right if one.is_right else options.wrong
    return options.right_with_rubbish if one.is_right else options.wrong_with_rubbish


def _stated(request: ScoreRequest, one: CheckedResponse) -> str:
    """The normalised answer, or what follows the thinking where there is none; empty when it is too long."""
    stated = one.answer
    if stated is None:
        stated = after_thinking(one.response.text, request.opens_think) or ""
    stated = stated.strip()
    return _normalised(stated) if len(stated) <= _MAX_CHARS else ""


def _normalised(text: str) -> str:
    text = _WRAPPER.sub(r"\1", text)
    text = _APOSTROPHE.sub("'", text).strip("\"'\u201c\u201d$ \t\r\n")
    return " ".join(text.rstrip(".!\u3002 ").casefold().split())

"""Problems to token ids, once, before the run: too long or broken ones are found here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.order import indices_for_step
from data.problem import Problem
from data.templates import Template
from grpo.errors import UserError
from grpo.records import Prompt


@dataclass(frozen=True)
class TooLong:
    """A problem that was left out."""

    problem: Problem
    num_tokens: int


@dataclass(frozen=True)
class PromptSet:
    """The training prompts, and which of them a step takes: a pure function of (seed, step).

    Every step owns as many places of the problems' order as all of its rounds could use, whether or not it uses them:
    so no step depends on how many rounds another one needed.
    """

    prompts: tuple[Prompt, ...]
    per_step: int
    seed: int
    max_rounds: int = 1

    def rounds(self, step: int) -> Iterator[list[Prompt]]:
        """The prompts of a step, counted from 1, round by round, for all ranks together.

        Where there are several rounds, each problem comes once in all of them: with few problems the last ones are
        short, or missing.
        """
        places = self.max_rounds * self.per_step
        indices = indices_for_step(len(self.prompts), places, self.seed, step - 1)
        if self.max_rounds > 1:
            indices = list(dict.fromkeys(indices))
        for first in range(0, len(indices), self.per_step):
            yield [self.prompts[index] for index in indices[first : first + self.per_step]]


def render_prompts(
    problems: Sequence[Problem], template: Template, tokenizer: Any, max_tokens: int
) -> tuple[list[Prompt], list[TooLong]]:
    """Render every problem with the template; those over `max_tokens` tokens are returned apart.

    Chat templates and openers are joined as text and tokenised once, without special tokens of the tokenizer's
    own (the chat template has written them already), so that no beginning-of-text token is doubled.
    """
    texts = [render_text(template, problem.question, tokenizer) for problem in problems]
    is_chat = template.render("").messages is not None
    encoded = tokenizer(texts, add_special_tokens=not is_chat).input_ids if texts else []
    kept, too_long = [], []
    for problem, ids in zip(problems, encoded, strict=True):
        if len(ids) > max_tokens:
            too_long.append(TooLong(problem, len(ids)))
        else:
            kept.append(Prompt(problem, np.array(ids, dtype=np.int32)))
    return kept, too_long


def render_text(template: Template, question: str, tokenizer: Any) -> str:
    """The prompt as the model reads it, the template's opener at its end."""
    rendered = template.render(question)
    if rendered.messages is None:
        return (rendered.text or "") + rendered.opener
    if not tokenizer.chat_template:
        raise UserError(
            f"data.template={template.name}: the model's tokenizer has no chat template; choose r1_zero or "
            "another template that is plain text"
        )
    messages = [{"role": message.role, "content": message.content} for message in rendered.messages]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text + rendered.opener

r"""Prompt templates: a question becomes chat messages or one raw text, and how its answer will be marked.

Nothing here is tokenised. A chat prompt is the model's own chat template over ``messages``, with its
generation prompt, followed by ``opener``; a raw prompt is ``text`` alone, for base models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.errors import DataError, explain, nearest

AnswerStyle = Literal["tags", "boxed"]
_SLOT = "{question}"
_OPEN = "<think>"


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str

    def filled(self, question: str) -> Message:
        """The message with the question in the slot's place."""
        return replace(self, content=self.content.replace(_SLOT, question))


@dataclass(frozen=True)
class Rendered:
    """A prompt for one question: either ``messages`` with an ``opener``, or ``text``; the other is None."""

    messages: tuple[Message, ...] | None
    text: str | None
    opener: str
    """What the assistant's turn already begins with; empty for raw text, which holds its own."""


@dataclass(frozen=True)
class Template:
    """``{question}`` in messages or text is replaced as it stands: braces in a question mean nothing."""

    name: str
    answer_style: AnswerStyle
    """``tags``: the answer stands in ``<answer>…</answer>``; ``boxed``: in the last ``\\boxed{}``."""
    messages: tuple[Message, ...] | None = None
    text: str | None = None
    opener: str = ""

    @property
    def opens_think(self) -> bool:
        """True when every prompt ends with ``<think>``, so that completions begin inside the thinking."""
        return (self.opener if self.text is None else self.text).rstrip().endswith(_OPEN)

    def render(self, question: str) -> Rendered:
        """The prompt for one question."""
        if self.text is not None:
            return Rendered(None, self.text.replace(_SLOT, question), "")
        turns = (message.filled(question) for message in self.messages or ())
        return Rendered(tuple(turns), None, self.opener)


_TAG_RULE = (
    "First think about the problem between <think> and </think>. "
    "Then write only the final answer between <answer> and </answer>."
)
_CHAT = Template(
    name="chat",
    answer_style="tags",
    messages=(Message("system", _TAG_RULE), Message("user", _SLOT)),
)
_BUILT_IN = (
    Template(
        name="r1_zero",
        answer_style="tags",
        text=(
            "Below, a User asks something and an Assistant solves it. The Assistant first works out the "
            "solution in its head and only then tells the User the result. The thoughts stand in "
            "<think> </think> and the result in <answer> </answer>, like this: "
            "<think> thoughts </think> <answer> result </answer>.\n"
            "User: {question}\nAssistant: <think>"
        ),
    ),
    Template(
        name="r1_zero_one_shot",
        answer_style="tags",
        messages=(
            Message("system", "Think, then answer."),
            Message("user", "What is 12 + 25?"),
            Message("assistant", "<think>12 + 25 = 37</think><answer>37</answer>"),
            Message("user", _SLOT),
        ),
        opener=_OPEN,
    ),
    _CHAT,
    replace(_CHAT, name="chat_think", opener=_OPEN),
    Template(
        name="qwen_math",
        answer_style="boxed",
        messages=(
            Message("system", r"Work through the problem step by step and give the final answer in \boxed{}."),
            Message("user", _SLOT),
        ),
    ),
    Template(name="plain", answer_style="boxed", text=_SLOT),
)
TEMPLATES = {template.name: template for template in _BUILT_IN}
"""By name. ``plain`` is the bare question as raw text, for models that box their answers unasked."""


def get_template(name_or_path: str) -> Template:
    """A built-in template by its name, or a user's own from a YAML file; DataError where it is neither."""
    if name_or_path in TEMPLATES:
        return TEMPLATES[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(path)
    raise DataError(
        f"template={name_or_path!r}: is no built-in template; {nearest(name_or_path, TEMPLATES)}; "
        "or give the path of a .yaml file"
    )


class _TurnFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str

    def message(self) -> Message:
        return Message(self.role, self.content)


class _ExampleFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str
    completion: str


class _TemplateFile(BaseModel):
    """The keys of a template file. Each of ``examples`` becomes a turn of the user, which is the message
    with the slot, and a turn of the assistant, both before the real question."""

    model_config = ConfigDict(extra="forbid")

    messages: list[_TurnFile] | None = Field(default=None, min_length=1)
    text: str | None = None
    opener: str = ""
    answer_style: AnswerStyle = "tags"
    examples: list[_ExampleFile] = Field(default_factory=list)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.messages is None) == (self.text is None):
            raise DataError("messages, text: exactly one of the two must be given; leave the other out")
        if self.messages is None:
            self._check_text()
        else:
            self._check_messages(self.messages)
        if _OPEN in self.opener and not self.opener.rstrip().endswith(_OPEN):
            raise DataError(f"opener={self.opener!r}: goes on after {_OPEN}, where only the model writes; end it there")
        return self

    def _check_text(self) -> None:
        if _SLOT not in (self.text or ""):
            raise DataError(f"text={self.text!r}: the question has no place; put {_SLOT} where it belongs")
        for name, value in (("opener", self.opener), ("examples", self.examples)):
            if value:
                raise DataError(f"{name}={value!r}: only messages have {name}; write it into text")

    def _check_messages(self, messages: list[_TurnFile]) -> None:
        last = messages[-1]
        if last.role != "user" or _SLOT not in last.content:
            raise DataError(f"messages[-1]={last.message()!r}: must be the user's and hold {_SLOT}; add it at the end")
        if any(turn.role == "system" for turn in messages[1:]):
            raise DataError("messages: a system message stands after others; make it the first")

    def turns(self) -> tuple[Message, ...] | None:
        """The messages with the examples written in."""
        if self.messages is None:
            return None
        *before, last = (turn.message() for turn in self.messages)
        shown: list[Message] = []
        for example in self.examples:
            shown += [last.filled(example.question), Message("assistant", example.completion)]
        return (*before, *shown, last)


def _from_yaml(path: Path) -> Template:
    where = f"template={str(path)!r}"
    try:
        parsed = _TemplateFile.model_validate(_yaml_mapping(path, where))
    except ValidationError as error:
        raise DataError(f"{where}: {explain('', error, _TemplateFile.model_fields)}") from error
    return Template(path.stem, parsed.answer_style, messages=parsed.turns(), text=parsed.text, opener=parsed.opener)


def _yaml_mapping(path: Path, where: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); give the path of a file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found = " ".join(str(error).split())
        raise DataError(f"{where}: is not valid YAML; mend it. {found}") from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: holds no keys; give messages or text")
    return content

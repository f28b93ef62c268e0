"""Prompt templates: what they end with, braces in questions, and users' own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import DataError
from data.templates import TEMPLATES, Message, Rendered, Template, get_template

BRACES = r"Let $x_{1} = \frac{1}{2}$ and S = {question} or {0}. What is {}?"


def ending(rendered: Rendered) -> str:
    return rendered.text if rendered.text is not None else rendered.opener


@pytest.mark.parametrize("name", TEMPLATES)
def test_opens_think_is_how_the_prompt_ends(name):
    template = get_template(name)
    rendered = template.render("What is 1 + 1?")
    assert template.opens_think == ending(rendered).endswith("<think>")
    assert (rendered.messages is None) != (rendered.text is None)
    assert template.name == name


@pytest.mark.parametrize(
    ("name", "opens_think", "style", "is_chat"),
    [
        ("r1_zero", True, "tags", False),
        ("r1_zero_one_shot", True, "tags", True),
        ("chat", False, "tags", True),
        ("chat_think", True, "tags", True),
        ("qwen_math", False, "boxed", True),
        ("plain", False, "boxed", False),
    ],
)
def test_built_in_templates(name, opens_think, style, is_chat):
    template = get_template(name)
    assert (template.opens_think, template.answer_style) == (opens_think, style)
    assert (template.render("Q").messages is not None) == is_chat


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_question_goes_in_once_and_as_it_is(name):
    rendered = get_template(name).render(BRACES)
    whole = rendered.text if rendered.messages is None else "".join(turn.content for turn in rendered.messages)
    assert whole is not None
    assert whole.count(BRACES) == 1


def test_plain_is_the_bare_question():
    assert get_template("plain").render(BRACES) == Rendered(None, BRACES, "")


def test_one_shot_is_an_exchange_before_the_question():
    rendered = get_template("r1_zero_one_shot").render("What is 2 + 3?")
    assert rendered.messages is not None
    assert [turn.role for turn in rendered.messages] == ["system", "user", "assistant", "user"]
    assert rendered.messages[2].content.startswith("<think>")
    assert rendered.messages[2].content.endswith("</think><answer>37</answer>")
    assert rendered.messages[3] == Message("user", "What is 2 + 3?")
    assert sum(len(turn.content) for turn in rendered.messages) < 150, "every character is paid for in each step"


def own(folder: Path, content: str) -> Template:
    file = folder / "mine.yaml"
    file.write_text(content)
    return get_template(str(file))


CHAT_FILE = """
messages:
  - {role: system, content: Be brief.}
  - {role: user, content: "Solve: {question}"}
examples:
  - {question: '1 + 1?', completion: "<think>easy</think><answer>2</answer>"}
opener: "Let me see. <think>"
"""


def test_own_chat_template_with_an_example(tmp_path):
    template = own(tmp_path, CHAT_FILE)
    assert (template.name, template.opens_think, template.answer_style) == ("mine", True, "tags")
    assert template.render("{x}?") == Rendered(
        (
            Message("system", "Be brief."),
            Message("user", "Solve: 1 + 1?"),
            Message("assistant", "<think>easy</think><answer>2</answer>"),
            Message("user", "Solve: {x}?"),
        ),
        None,
        "Let me see. <think>",
    )


def test_own_text_template(tmp_path):
    template = own(tmp_path, 'text: "Q: {question}\\nA: <think>\\n"\nanswer_style: boxed')
    assert (template.opens_think, template.answer_style) == (True, "boxed")
    assert template.render("5?").text == "Q: 5?\nA: <think>\n"


REFUSED = [
    ("text: no slot", r"text='no slot': .*put \{question\}"),
    ("answer_style: tags", "exactly one of the two"),
    ('text: "{question}"\nmessages: [{role: user, content: "{question}"}]', "exactly one of the two"),
    ('text: "{question}"\nopener: <think>', "opener='<think>': only messages have opener"),
    (
        'text: "{question}"\nexamples: [{question: a, completion: b}]',
        "examples=.*only messages have examples",
    ),
    ('text: "{question}"\nanswer_stile: tags', "answer_stile='tags': .*did you mean 'answer_style'"),
    ('text: "{question}"\nanswer_style: loud', "answer_style='loud': input should be 'tags' or 'boxed'"),
    ("messages: []", "messages="),
    ('messages: [{role: user, content: "no"}]', r"messages\[-1\]"),
    ('messages: [{role: robot, content: "{question}"}]', "messages.0.role='robot'"),
    ('messages: [{role: system, content: "{question}"}]', r"messages\[-1\]"),
    (
        'messages: [{role: user, content: a}, {role: system, content: b}, {role: user, content: "{question}"}]',
        "a system message stands after others",
    ),
    (
        'messages: [{role: user, content: "{question}"}]\nopener: "<think> So"',
        "opener='<think> So': goes on after",
    ),
    ("- a list", "holds no keys"),
    ("", "holds no keys"),
    ("text: [", "is not valid YAML"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED)
def test_own_templates_are_checked(tmp_path, content, message):
    with pytest.raises(DataError, match=r"template='.*mine\.yaml': .*" + message):
        own(tmp_path, content)


def test_unknown_names_and_missing_files(tmp_path):
    with pytest.raises(DataError, match=r"template='r1_zer': .*did you mean 'r1_zero'"):
        get_template("r1_zer")
    with pytest.raises(DataError, match="cannot be read"):
        get_template(str(tmp_path / "none.yaml"))

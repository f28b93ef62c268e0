"""Share of the completion's words that are written in the target language, as DeepSeek-R1 rewards it.

The language is told by Unicode script alone, so languages that share a script are not told apart. A *word*
is a run of two or more letters of one script; in scripts without blanks between words (Han, kana, Thai) each
letter is one. Marks and apostrophes belong to the letter before. Single letters ("a", "x", "π") are no words.

Tags and LaTeX commands are left out. In code (fences and back-ticks) and maths (``$…$``, ``\\(…\\)``,
``\\[…\\]``) Latin letters are names, not prose, unless five words or more stand in a row with single blanks
between them; words of other scripts count there too, and so does all of ``\\text{…}``. So prose cannot be
hidden in them.
"""

from __future__ import annotations

import re

from rewards.options import LanguageOptions
from rewards.scripts import SCRIPTS_OF_LANGUAGE, SPACED, UNSPACED, to_scripts
from rewards.types import ScoreRequest

_WORD = re.compile("|".join([*(f"{letter}{{2,}}" for letter in SPACED), f"[{UNSPACED}]"]))
_TAG = re.compile(r"</?(?:think|answer)>")
_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mbox|hbox)[ ]?\{([^{}]*)\}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_DELIMITER = re.compile(r"```[A-Za-z0-9+#-]*|`|\$\$?|\\[()\[\]]")
_CLOSING = {"```": "```", "`": "`", "$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]"}
_LATIN_PROSE = re.compile(r"(?<![A-Za-z])[A-Za-z]+(?:,? [A-Za-z]+){4,}(?![A-Za-z])")
_ASCII_LETTER = re.compile(r"[A-Za-z]+")


def language_reward(request: ScoreRequest, options: LanguageOptions) -> list[float]:
    """``target words / all words`` of each completion, from 0 to 1; 1.0 (neutral) when it has no words."""
    return [language_share(response.text, options.target) for response in request.responses]


def language_share(text: str, target: str) -> float:
    """The share for one text; see the module for what a word is."""
    words = _WORD.findall(to_scripts(_prose(text)))
    wanted = SCRIPTS_OF_LANGUAGE[target]
    return sum(word[0] in wanted for word in words) / len(words) if words else 1.0


def _prose(text: str) -> str:
    """The text without tags and commands, and without the Latin names in code and maths."""
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "\\" not in text and "$" not in text and "`" not in text:
        return text
    return _COMMAND.sub(" ", " ".join(_segments(text)))


def _segments(text: str) -> list[str]:
    """Prose as it stands, code and maths reduced to what counts in them. One pass over the delimiters."""
    kept: list[str] = []
    start, awaited = 0, ""
    for token in _DELIMITER.finditer(text):
        delimiter = "```" if token[0].startswith("```") else token[0]
        if awaited and delimiter == awaited:
            kept.append(_without_names(text[start : token.start()]))
            start, awaited = token.end(), ""
        elif not awaited and delimiter in _CLOSING:
            kept.append(text[start : token.start()])
            start, awaited = token.end(), _CLOSING[delimiter]
    kept.append(text[start:])
    return kept


def _without_names(segment: str) -> str:
    """What counts of code or maths: `\\text{}`, runs of Latin words, and letters of other scripts."""
    prose = _TEXT_COMMAND.findall(segment)
    rest = _COMMAND.sub(" ", _TEXT_COMMAND.sub(" ", segment))
    prose += _LATIN_PROSE.findall(rest)
    return " ".join([*prose, "" if rest.isascii() else _ASCII_LETTER.sub(" ", rest)])

"""Share of the completion's words that are written in the target language, as DeepSeek-R1 rewards it.

By default the language is told by Unicode script alone, so languages that share a script are not told apart; see
`rewards.parts.identify` for the optional package that does. A *word* is a run of two or more letters of one script; in
scripts without blanks between words (Han, kana, Thai) each letter is one. Marks, apostrophes and characters that cannot
be seen belong to the letter before. Letters of Latin, Cyrillic and rarer scripts, which look alike, run on into one
word, which then belongs to no language. Single letters ("a", "x", "π") are no words, unless five or more stand in a row
with single blanks between them: then each is one.

Tags and LaTeX commands are left out. In code (fences and back-ticks) and maths (``$…$``, ``\\(…\\)``, ``\\[…\\]``)
Latin words are names, not prose, unless they stand in a row with nothing but blanks, line ends and single commas
between them, five or more in code and three or more in maths (or five joined by underscores). Words of other scripts
count there too, and so does all of ``\\text{…}``. Pieces of code and maths with only blanks between them are one piece.
So prose cannot be hidden in them, and a formula that is never closed hides nothing.

What rules cannot see: words written in digits or in a cipher, and a language transcribed into another's script.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

from rewards.parts.identify import open_identifier, sentences
from rewards.parts.options import LanguageOptions
from rewards.parts.scripts import ALIKE, LATIN, SCRIPTS_OF_LANGUAGE, UNLIKE, UNSPACED, to_scripts
from rewards.records import ScoreRequest

# These patterns read scripts (see `to_scripts`): a capital is a letter of that script.
_WORD = re.compile("|".join([f"[{ALIKE}]{{2,}}", *(f"{script}{{2,}}" for script in UNLIKE), f"[{UNSPACED}]"]))
_SPELT_OUT = re.compile("(?<![A-Z])[A-Z](?: [A-Z](?![A-Z])){4,}+")
"""Five or more single letters with single blanks between them."""
_IMPORT = re.compile(r"^[ \t]*(?:from [\w.]+ )?import [\w.]+(?: as \w+)?[ \t]*$", re.MULTILINE)
_TAG = re.compile(r"</?(?:think|answer)>")
_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mbox|hbox)[ ]?\{((?:[^{}]|\{[^{}]*\})*+)\}")
_COMMAND = re.compile(r"\\(?:[A-Za-z]++|[ ,;:!])")
_DELIMITER = re.compile(r"```[A-Za-z0-9+#-]*|`|\$\$?|\\[()\[\]]")
_CLOSING = {"```": "```", "`": "`", "$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]"}
_BRACES = str.maketrans("{}~", "   ")
_UNDERSCORED = "L++(?:_L++){4,}+"
"""Five or more Latin words joined by underscores."""
_PROSE_IN_CODE = re.compile(f"(?<!L)(?:L++(?:,? ++L++){{4,}}+|{_UNDERSCORED})")
_PROSE_IN_MATHS = re.compile(f"(?<!L)(?:L++(?:,? ++L++){{2,}}+|{_UNDERSCORED})")


class _Piece(NamedTuple):
    """A part of a text between delimiters."""

    text: str
    is_prose: bool = True
    is_code: bool = False


def language_reward(request: ScoreRequest, options: LanguageOptions) -> list[float]:
    """``target words / all words`` of each completion, from 0 to 1; 1.0 (neutral) when it has no words.

    The language consistency reward of DeepSeek-R1 (arXiv 2501.12948, section 2.3.2), which does not say what a word
    is nor how its language is told; the module does.
    """
    is_target = open_identifier(options.identifier, options.target) if options.identifier else None
    return [language_share(response.text, options.target, is_target) for response in request.responses]


def language_share(text: str, target: str, is_target: Callable[[str], bool] | None = None) -> float:
    """The share for one text; see the module for what a word is.

    With `is_target`, the words of a sentence count for the target only if it says so of the sentence; words that
    count in code and maths are still told by script.
    """
    pieces = list(_pieces(_TAG.sub(" ", text) if "<" in text else text))
    prose = "\n".join(_COMMAND.sub(" ", piece.text) for piece in pieces if piece.is_prose)
    hidden = " . ".join(_counted(piece) for piece in pieces if not piece.is_prose)
    wanted = SCRIPTS_OF_LANGUAGE[target]
    right, total = _count(hidden, wanted)
    for sentence in sentences(prose) if is_target else [prose]:
        right_here, total_here = _count(to_scripts(sentence), wanted)
        total += total_here
        if is_target is None or is_target(sentence):
            right += right_here
    return right / total if total else 1.0


def _count(scripts: str, wanted: str) -> tuple[int, int]:
    """How many of the words are written in `wanted` scripts, and how many there are."""
    words = _WORD.findall(_SPELT_OUT.sub(_letters_as_words, scripts))
    return sum(not word.strip(wanted) for word in words), len(words)


def _letters_as_words(spelt: re.Match[str]) -> str:
    return " ".join(letter * 2 for letter in spelt[0].split(" "))


def _pieces(text: str) -> Iterator[_Piece]:
    """Prose, code and maths in their order. One pass over the delimiters; pieces parted by blanks are joined."""
    if "\\" not in text and "$" not in text and "`" not in text:
        yield _Piece(text)
        return
    pieces = (piece for piece in _raw_pieces(text) if not piece.text.isspace())
    for is_prose, neighbours in groupby(pieces, key=lambda piece: piece.is_prose):
        same = list(neighbours)
        yield _Piece(" ".join(piece.text for piece in same), is_prose, any(piece.is_code for piece in same))


def _raw_pieces(text: str) -> Iterator[_Piece]:
    start, awaited = 0, ""
    for token in _DELIMITER.finditer(text):
        delimiter = "```" if token[0].startswith("```") else token[0]
        if awaited and delimiter == awaited:
            yield _Piece(text[start : token.start()], is_prose=False, is_code=delimiter[0] == "`")
            start, awaited = token.end(), ""
        elif not awaited and delimiter in _CLOSING:
            if start < token.start():
                yield _Piece(text[start : token.start()])
            start, awaited = token.end(), _CLOSING[delimiter]
    if start < len(text):
        yield _Piece(text[start:])


def _counted(piece: _Piece) -> str:
    """The scripts of what counts in code or maths: ``\\text{}``, rows of Latin words, and words of other scripts."""
    texts = _TEXT_COMMAND.findall(piece.text)
    rest = _COMMAND.sub(" ", _TEXT_COMMAND.sub(" . ", piece.text).translate(_BRACES))
    scripts = to_scripts(_IMPORT.sub(".", rest) if piece.is_code else rest)
    prose = (_PROSE_IN_CODE if piece.is_code else _PROSE_IN_MATHS).findall(scripts)
    others = [] if rest.isascii() else [word for word in _WORD.findall(scripts) if word.strip(LATIN)]
    return " . ".join([*map(to_scripts, texts), *prose, *others])

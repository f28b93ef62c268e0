"""Which Unicode scripts a language is written in, and which script a character belongs to.

A script is one letter here, so that a text can be mapped to its scripts by one `str.translate`: a capital for scripts
that put blanks between words, a small one for the others.
"""

from __future__ import annotations

import unicodedata

LATIN, CYRILLIC, GREEK, ARABIC, HEBREW, DEVANAGARI, HANGUL = "L", "C", "G", "A", "H", "D", "K"
HAN, KANA, THAI = "z", "j", "t"
OTHER = "O"
ALIKE = LATIN + CYRILLIC + OTHER
"""Scripts that put blanks between words and have letters that look like each other's."""
UNLIKE = GREEK + ARABIC + HEBREW + DEVANAGARI + HANGUL
"""Other scripts that put blanks between words; their letters stand beside foreign ones ("x는", "sinθ")."""
UNSPACED = HAN + KANA + THAI
"""Scripts that do not; there, each letter counts as one word."""

_SCRIPT_OF_NAME = {
    "LATIN": LATIN,
    "CYRILLIC": CYRILLIC,
    "GREEK": GREEK,
    "ARABIC": ARABIC,
    "HEBREW": HEBREW,
    "DEVANAGARI": DEVANAGARI,
    "HANGUL": HANGUL,
    "CJK": HAN,
    "HIRAGANA": KANA,
    "KATAKANA": KANA,
    "THAI": THAI,
    "BRAILLE": OTHER,
    "REGIONAL": OTHER,
}

SCRIPTS_OF_LANGUAGE: dict[str, str] = {
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "fi"), LATIN),
    **dict.fromkeys(("pl", "cs", "ro", "hu", "tr", "vi", "id", "ms"), LATIN),
    **dict.fromkeys(("ru", "uk", "bg", "sr"), CYRILLIC),
    **dict.fromkeys(("ar", "fa", "ur"), ARABIC),
    **dict.fromkeys(("hi", "mr", "ne"), DEVANAGARI),
    "zh": HAN,
    "ja": HAN + KANA,
    "ko": HANGUL,
    "el": GREEK,
    "he": HEBREW,
    "th": THAI,
}

_APOSTROPHES = "'\u2019\u02bc"
_COMMAS = ",\uff0c\u3001\u060c"
_PARTS_OF_WORDS = ("M", "Cf", "Sk")
"""Categories that belong to the letter before: marks, and characters that cannot be seen."""


def _script(character: str) -> str:
    """One script letter; a blank, a comma, an underscore or a full stop for what is no letter; nothing for a mark."""
    category = unicodedata.category(character)
    if character in _APOSTROPHES or category.startswith(_PARTS_OF_WORDS):
        return ""
    if category[0] == "L":
        return _script_of_letter(character)
    if character.isspace():
        return " "
    if character in _COMMAS:
        return ","
    return "_" if character == "_" else _script_of_symbol(character)


def _script_of_letter(character: str) -> str:
    plain = unicodedata.normalize("NFKC", character)[0]
    name = unicodedata.name(plain, "OTHER")
    return _SCRIPT_OF_NAME.get(name.split(" ", 1)[0].split("-", 1)[0], OTHER)


def _script_of_symbol(character: str) -> str:
    """Letters in circles and squares, flags and Braille are letters; every other sign is a full stop."""
    name = unicodedata.name(character, "")
    if name.startswith(("BRAILLE PATTERN DOTS", "REGIONAL INDICATOR")):
        return OTHER
    letters = [plain for plain in unicodedata.normalize("NFKC", character) if plain.isalpha()]
    return _script_of_letter(letters[0]) if "LETTER" in name and letters else "."


class _ScriptTable(dict[int, str]):
    """A translation table that learns each character when it first meets it."""

    def __missing__(self, code: int) -> str:
        self[code] = _script(chr(code))
        return self[code]


_TABLE = _ScriptTable()


def to_scripts(text: str) -> str:
    """`text` with every letter replaced by its script and every sign by a stop: "Да, ok! x_1" is "CC, LL. L_."."""
    return text.translate(_TABLE)

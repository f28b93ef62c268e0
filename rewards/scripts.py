"""Which Unicode scripts a language is written in, and which script a character belongs to.

A script is one letter here, so that a text can be mapped to its scripts by one `str.translate`.
"""

from __future__ import annotations

import unicodedata

LATIN, CYRILLIC, GREEK, ARABIC, HEBREW, DEVANAGARI, HANGUL = "L", "C", "G", "A", "H", "D", "K"
HAN, KANA, THAI = "z", "j", "t"
OTHER = "O"
SPACED = LATIN + CYRILLIC + GREEK + ARABIC + HEBREW + DEVANAGARI + HANGUL + OTHER
"""Scripts that put blanks between words."""
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

_JOINERS = "'\u2019\u02bc\u200c\u200d\u00ad"
"""Inside a word: apostrophes, joiners and the soft hyphen."""


def _script(character: str) -> str:
    """One script letter, a blank for what is no letter, nothing for a mark on the letter before."""
    category = unicodedata.category(character)
    if category[0] == "M" or character in _JOINERS:
        return ""
    if category[0] != "L":
        return " "
    name = unicodedata.name(character, "OTHER")
    first = name.removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ").split(" ", 1)[0].split("-", 1)[0]
    return _SCRIPT_OF_NAME.get(first, OTHER)


class _ScriptTable(dict[int, str]):
    """A translation table that learns each character when it first meets it."""

    def __missing__(self, code: int) -> str:
        self[code] = _script(chr(code))
        return self[code]


_TABLE = _ScriptTable()


def to_scripts(text: str) -> str:
    """`text` with every letter replaced by its script and everything else by blanks: "Да, ok" is "CC  LL"."""
    return text.translate(_TABLE)

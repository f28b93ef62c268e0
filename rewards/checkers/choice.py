"""Multiple choice: one letter, and no other.

Gold: a letter (``B`` or ``(B)``), or ``{"letter": "B", "text": "Paris"}`` where the option's words count as well. The
answer is the letter, bare or marked (``B``, ``(b)``, ``B.``, ``\\textbf{(B)}``, ``Option B``), alone or in front of
the option's words. An answer that names a second letter chooses nothing.
"""

from __future__ import annotations

import json
import re
import unicodedata

from rewards.errors import MalformedAnswerError, UnusableGoldError

_COMMAND = re.compile(r"\\(?:text(?:bf|rm|it|sf)?|math(?:bf|rm|it)|boxed)\s*|[{}$*`~]|\\(?=\s|$)")
_LETTER = re.compile(
    r"(?:(?:the )?(?:option|choice|answer)(?: is)?:? )?(?:\(([a-z])\)|([a-z])[.):]?)(?P<words>.*)", re.IGNORECASE
)
_MARKED = re.compile(
    r"\([a-z]\)|(?<![a-z])[a-z][.):](?=\s)|"
    r"(?<![a-z'])(?:[b-hj-z]|[ai](?! (?!or |and |not |nor )[a-z]{2}))(?![a-z'])",
    re.IGNORECASE,
)
"""Another letter: any that stands alone, but for the words "a" and "I" in front of a word."""


def check(gold: str, answer: str) -> bool:
    """Does the answer choose the gold's letter, or say its words?"""
    letter, words = _parse_gold(gold)
    plain = _plain(answer)
    if len(words) > 1 and plain.casefold() == words.casefold():
        return True
    chosen = _LETTER.fullmatch(plain)
    if chosen is None:
        raise MalformedAnswerError("no single letter")
    rest = chosen["words"].strip(" .:-")
    is_marked = chosen[1] is not None or plain[chosen.end(2) : chosen.end(2) + 1] in tuple(".):")
    if rest and (not is_marked or chosen["words"][:1] not in " .:-" or _MARKED.search(rest)):
        raise MalformedAnswerError("more than one letter, or words that are no option")
    if rest and words and rest.casefold() != words.casefold():
        return False
    return (chosen[1] or chosen[2]).upper() == letter


def check_gold(gold: str) -> None:
    """Raises UnusableGoldError unless the gold is a letter, with or without the words of its option."""
    _parse_gold(gold)


def _parse_gold(gold: str) -> tuple[str, str]:
    """The letter, in upper case, and the option's words (empty where they do not count)."""
    letter, words = gold, ""
    if gold.lstrip().startswith("{"):
        try:
            option = json.loads(gold)
            letter, words = option["letter"], _plain(option["text"])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UnusableGoldError(f'{gold!r} is not {{"letter": "B", "text": "…"}}') from None
    found = re.fullmatch(r"\(?([A-Za-z])[).]?", str(letter).strip())
    if found is None:
        raise UnusableGoldError(f"{letter!r} is not one letter; give the letter of the right option")
    return found[1].upper(), words


def _plain(text: str) -> str:
    return " ".join(_COMMAND.sub(" ", unicodedata.normalize("NFKC", text)).split()).strip(" .")

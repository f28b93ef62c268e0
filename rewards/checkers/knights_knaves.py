"""Knights and knaves: who tells the truth and who lies.

Gold: a JSON object such as ``{"Amelia": true, "Penelope": false}``, true for a knight. The answer lists each
person exactly once, in any order and case: ``Amelia is a knight, Penelope is a knave``. Statements are
parted by commas, semicolons, full stops, line breaks or "and", may be numbered (``(1)``, ``2.``, ``-``), and
say ``X is a knight``, ``X: knight`` or ``X = knight``. A clause of any other kind makes the answer malformed.
"""

from __future__ import annotations

import json
import re

from rewards.errors import MalformedAnswerError, UnusableGoldError

_SEPARATOR = re.compile(r"[,;\n]|\.(?=\s|$)|(?<![^\W_])and(?![^\W_])", re.IGNORECASE)
_CLAUSE = re.compile(
    r"(?:\([0-9]{1,2}\)|[0-9]{1,2}[.)]|[-*])?\s*(?P<name>[^\W\d_][\w '-]{0,40}?)\s*"
    r"(?:\bis\s+(?:an?\s+|the\s+)?|[:=]\s*(?:an?\s+)?)(?P<role>knight|knave)",
    re.IGNORECASE,
)
_NUMBERING = re.compile(r"(?<![^\s,;.])\(?[0-9]{1,2}[.)](?=\s)")


def check(gold: str, answer: str) -> bool:
    """Does the answer give every person, exactly once, the right role?"""
    wanted = _parse_gold(gold)
    stated = _parse_answer(answer)
    names = [name for name, _ in stated]
    return len(names) == len(wanted) and dict(stated) == wanted


def check_gold(gold: str) -> None:
    """Raises UnusableGoldError unless the gold is of the form above, with names that can be told apart in an answer."""
    people = _parse_gold(gold)
    told = ", ".join(f"{name} is a {'knight' if knight else 'knave'}" for name, knight in people.items())
    if not check(gold, told):
        raise UnusableGoldError(f"{gold!r} does not verify against itself; give plain names")


def _parse_gold(gold: str) -> dict[str, bool]:
    try:
        people = json.loads(gold)
    except ValueError:
        people = None
    if not isinstance(people, dict) or not people or {*map(type, people.values())} != {bool}:
        raise UnusableGoldError(f"{gold!r} is not a JSON object of names and true or false")
    folded = {name.strip().casefold(): knight for name, knight in people.items()}
    if len(folded) != len(people):
        raise UnusableGoldError(f"{gold!r} names a person twice")
    return folded


def _parse_answer(answer: str) -> list[tuple[str, bool]]:
    plain = _NUMBERING.sub("\n", answer.replace("**", "").replace("`", ""))
    clauses = [clause.strip() for clause in _SEPARATOR.split(plain) if clause.strip()]
    if not clauses:
        raise MalformedAnswerError("no statement")
    return [_parse_clause(clause) for clause in clauses]


def _parse_clause(clause: str) -> tuple[str, bool]:
    match = _CLAUSE.fullmatch(clause)
    if match is None:
        raise MalformedAnswerError(f"{clause!r} does not say who is a knight or a knave")
    return match["name"].strip().casefold(), match["role"].casefold() == "knight"

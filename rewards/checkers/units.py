"""A quantity is a number and its unit: the two are told apart here, and units get one spelling.

Known units are recognised wherever they stand. Other words behind a number are taken for what is counted when they
are lower-case words whose last is a plural (``12 red apples``; ``1 apple``), and none of them changes the number or
makes a statement (``12 thirds``, ``12 or so``, ``12 is wrong``). A single letter is a unit only behind a blank or
inside ``\\text{}``: ``4m`` is a product.
"""

from __future__ import annotations

import re

_NAMES = """
mm millimeter millimetre / cm centimeter centimetre cms / m meter metre / km kilometer kilometre kms / nm nanometer
um micrometer / in inch inches / ft foot feet / yd yard / mi mile / mg milligram / g gram gm / kg kilogram kilo kgs
lb pound lbs / oz ounce / tonne ton / ml milliliter millilitre mL / l liter litre L / gal gallon
s second sec secs / ms millisecond / min minute mins / h hour hr hrs / day / week wk / month / year yr yrs / am a.m
pm p.m / dollar usd USD / euro eur EUR / pound_sterling gbp GBP / cent / rupee / yen / yuan
newton N / joule J / kj kJ / watt W / kw kW / mw MW / pascal pa Pa / kpa kPa / hertz hz Hz / volt V / ampere amp A
ev eV / kelvin K / mole mol / ohm / radian rad / degree deg / mph / kmh kph kmph / unit
people person / child children / man men / woman women / fish / sheep
"""
"""A unit's name here, and what else it is called; units by ``/``."""
_ONE_SPELLING = {
    word: names.split()[0] for line in _NAMES.splitlines() for names in line.split("/") for word in names.split()
}
NEVER_DROPPED = frozenset(("°c", "°f"))
"""Units without which the number says something else."""
_CURRENCY = {"\\$": "dollar", "$": "dollar", "USD": "dollar", "US\\$": "dollar", "€": "euro", "\\euro": "euro"} | {
    "£": "pound_sterling",
    "¥": "yen",
    "₹": "rupee",
}
_NO_NOUN_WORDS = """
not no nor is are was be than then if but so as less more least most about around approximately nearly almost over
under between from to through until versus unless odd even also hence either neither maybe perhaps probably possibly
wrong right correct incorrect false true impossible unsure above below minus plus times divided modulo mod or and with
without except negative positive point base root power inverse choose double triple twice half quarter factorial
zero one two three four five six seven eight nine ten eleven twelve dozen score gross twenty thirty forty fifty
hundred thousand million billion trillion lakh crore percent permille ppm basis
third fourth fifth sixth seventh eighth ninth tenth hundredth thousandth millionth halve
"""
_NO_NOUN = frozenset(_NO_NOUN_WORDS.split())
_SQUARE = {"square": "^2", "sq": "^2", "cubic": "^3", "cu": "^3"}
_SQUARED = {"squared": "^2", "cubed": "^3"}
_BARE_LETTERS = "mgshLNJWVAK"
_WORD = r"[A-Za-z][A-Za-z.']*"
_POWER = r"(?: ?\^ ?\{?-?[1-4]\}?)?"
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?\^ ?\\circ")
_LETTERS = re.compile(r"(?<![A-Za-z\\])[A-Za-z]")
_MARKED = rf"\\text ?\{{ ?{_WORD}{_POWER}(?: ?[ /·] ?{_WORD}{_POWER}){{0,4}} ?\}}{_POWER}"
_BARE = rf"{_WORD}{_POWER}"
_UNIT_BEHIND = re.compile(
    r"(?P<body>.*?[0-9A-Za-z})\]!]) ?"
    r"(?P<unit>\^\\circ(?: ?\\text ?\{ ?[CF] ?\}| ?[CF](?![A-Za-z]))?"
    rf"|{_MARKED}(?: ?(?:/|\\cdot) ?{_MARKED}){{0,2}}"
    rf"|\\frac ?\{{ ?{_MARKED} ?\}} ?\{{ ?{_MARKED} ?\}}"
    rf"|(?<=[0-9}}])(?: {_BARE}){{1,4}}(?: ?/ ?{_BARE})?"
    rf"|(?<=[0-9}}])[A-Za-z]{{2,12}}{_POWER}(?:/{_BARE})?)"
)
_UNIT_IN_FRONT = re.compile(
    r"(?P<sign>[-+]?) ?(?P<unit>\\\$|US\\\$|USD|€|£|¥|₹|\$|\\euro(?![a-z])) ?(?P<body>[-+]?[0-9.\\(](?!\$).*)"
)
_FRACTION_OF_UNITS = re.compile(r"\\frac ?\{(.*?\}) ?\} ?\{ ?(\\text.*)\}")
_PIECE = re.compile(r"[A-Za-z.']+|/|\^-?[1-4]")


def split_unit(text: str) -> tuple[str, str]:
    """The body of a quantity and its unit in one spelling; ``(text, "")`` when there is no unit."""
    if front := _UNIT_IN_FRONT.fullmatch(text):
        unit = _CURRENCY[front["unit"]]
        body, again = _split_behind(front["body"])
        return f"{front['sign']}{body}", unit if again in ("", unit) else f"{unit} {again}"
    return _split_behind(text)


def in_radians(text: str) -> str:
    """``30^\\circ`` as ``\\frac{30 \\cdot \\pi}{180}``, wherever a number of degrees stands."""
    return _DEGREES.sub(r"\\frac{\1 \\cdot \\pi}{180}", text)


def _split_behind(text: str) -> tuple[str, str]:
    behind = _UNIT_BEHIND.fullmatch(text)
    if behind is None:
        return text, ""
    body, written = behind["body"].strip(), behind["unit"]
    is_marked = "\\" in written
    if not is_marked and _LETTERS.search(body):
        return text, ""
    is_glued = not is_marked and written[0] != " " and text[behind.start("unit") - 1] != " "
    unit = _spell(written, is_marked, is_glued, is_one=body == "1")
    return (body, unit) if unit else (text, "")


def _spell(written: str, is_marked: bool, is_glued: bool, is_one: bool) -> str:
    """One spelling of a unit, or nothing when the words are no unit."""
    plain = _FRACTION_OF_UNITS.sub(r"\1/\2", written)
    plain = re.sub(r"\\text ?|[{}]", " ", plain).replace("\\cdot", "").replace("·", " ").replace("^\\circ", "°").strip()
    if plain.startswith("°"):
        return plain.replace(" ", "").lower() if plain != "°" else "degree"
    pieces = _PIECE.findall(plain)
    words = [piece.strip(".") for piece in pieces if piece[0] not in "/^"]
    if not words or (is_glued and words[0] not in _ONE_SPELLING):
        return ""
    if not is_marked and not all(len(word) > 1 or word in _BARE_LETTERS for word in words):
        return ""
    if any(_changes_the_number(word) for word in words) or not (is_one or _is_counted(words)):
        return ""
    return _join([piece if piece[0] in "/^" else _singular(piece.strip(".")) for piece in pieces])


def _changes_the_number(word: str) -> bool:
    lower = word.lower()
    return "'" in word or lower in _NO_NOUN or lower.removesuffix("s") in _NO_NOUN


def _is_counted(words: list[str]) -> bool:
    """Whether the words name what is counted: units that are known, or words of which the last is a plural."""
    *_, last = words
    if _is_known(last) or last in _SQUARED:
        return len(words) > 1 or last not in _SQUARED
    return last.islower() and last.endswith("s") and not last.endswith("ss") and len(last) > 3


def _is_known(word: str) -> bool:
    return any(form in _ONE_SPELLING for form in (word, word.lower(), word.lower().removesuffix("s")))


def _singular(word: str) -> str:
    """A word of a unit in the singular, and a known unit by its own name: ``metres`` is ``m``."""
    lower = word.lower()
    singular = lower.removesuffix("s") if len(lower) > 3 and not lower.endswith("ss") else lower
    return next((_ONE_SPELLING[form] for form in (word, lower, singular) if form in _ONE_SPELLING), singular)


def _join(words: list[str]) -> str:
    """The words of a unit as one text: ``square cm``, ``cm squared`` and ``cm^2`` are ``cm^2``, ``per`` is ``/``."""
    joined: list[str] = []
    power = ""
    for word in words:
        if word in _SQUARE:
            power = _SQUARE[word]
            continue
        joined.append("/" if word == "per" else _SQUARED.get(word, word))
        if power and word != "/":
            joined.append(power)
            power = ""
    return "".join(joined)

"""A quantity is a number and its unit: the two are told apart here, and units get one spelling.

Known units are recognised wherever they stand; any other one or two words behind a number are taken for what is
counted (``12 apples``), unless they are words that make a statement (``12 or so``). A single letter is a unit
only behind a blank or inside ``\\text{}``: ``4m`` is a product.
"""

from __future__ import annotations

import re

_NAMES = """
mm millimeter millimetre / cm centimeter centimetre / m meter metre / km kilometer kilometre / nm nanometer
um micrometer / in inch inches / ft foot feet / yd yard / mi mile / mg milligram / g gram gm / kg kilogram kilo
lb pound lbs / oz ounce / t tonne ton / ml milliliter millilitre mL / l liter litre L / gal gallon
s second sec / ms millisecond / min minute mins / h hour hr hrs / d day / week wk / year yr yrs / am a.m / pm p.m
dollar usd / euro eur / pound_sterling gbp / cent / rupee / yen / yuan
n newton N / j joule J / kj kJ / w watt W / kw kW / mw MW / pa pascal Pa / kpa kPa / hz hertz Hz / v volt V
a ampere amp A / ev eV / k kelvin K / mol mole / ohm / rad radian / degree deg / mph / unit / people person
"""
"""A unit's short name, and what else it is called."""
_ONE_SPELLING = {
    word: names.split()[0] for line in _NAMES.splitlines() for names in line.split("/") for word in names.split()
}
NEVER_DROPPED = frozenset(("°c", "°f"))
"""Units without which the number says something else."""
_CURRENCY = {
    "\\$": "dollar",
    "$": "dollar",
    "€": "euro",
    "\\euro": "euro",
    "£": "pound_sterling",
    "¥": "yen",
    "₹": "rupee",
}
_NO_NOUN_WORDS = """
not no is are was be than then if but so less more least most about around approximately nearly almost over under
between from to of the a an plus minus times divided modulo mod or and with without except either maybe perhaps
probably wrong right correct incorrect false true negative positive point double twice factorial
half halves third thirds quarter quarters fourths fifths sixths sevenths eighths ninths tenths hundredths thousandths
zero one two three four five six seven eight nine ten eleven twelve dozen dozens score twenty thirty forty fifty
hundred hundreds thousand thousands million billion trillion
mathbb sin cos tan log ln exp sqrt pi infinity
"""
_NO_NOUN = frozenset(_NO_NOUN_WORDS.split())
_BARE_LETTERS = "mgshLNJWVAK"
_WORD = r"[A-Za-z][A-Za-z.']*"
_POWER = r"(?: ?\^ ?\{?[1-4]\}?)?"
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?\^ ?\\circ")
_LETTERS = re.compile(r"(?<![A-Za-z\\])[A-Za-z]")
_MARKED = rf"\\text ?\{{(?:[^{{}}\\$0-9]|\^[1-4]){{1,40}}\}}{_POWER}"
_BARE = rf"{_WORD}{_POWER}"
_BEHIND = re.compile(
    r"(?P<body>.*?[0-9A-Za-z})\]!]) ?"
    r"(?P<unit>\^\\circ(?: ?\\text ?\{ ?[CF] ?\}| ?[CF](?![A-Za-z]))?"
    rf"|{_MARKED}(?: ?(?:/|\\cdot) ?{_MARKED}){{0,2}}"
    rf"|\\frac ?\{{ ?{_MARKED} ?\}} ?\{{ ?{_MARKED} ?\}}"
    rf"|(?<=[0-9}}])(?: {_BARE}){{1,4}}(?: ?/ ?{_BARE})?"
    rf"|(?<=[0-9}}])[A-Za-z]{{2,12}}{_POWER}(?:/{_BARE})?)"
)
_FRONT = re.compile(r"(?P<sign>[-+]?) ?(?P<unit>\\\$|€|£|¥|₹|\$|\\euro(?![a-z])) ?(?P<body>[-+]?[0-9.\\(].*)")


def split_unit(text: str) -> tuple[str, str]:
    """The body of a quantity and its unit in one spelling; ``(text, "")`` when there is no unit."""
    if front := _FRONT.fullmatch(text):
        unit = _CURRENCY[front["unit"]]
        body, again = split_unit(front["body"])
        return f"{front['sign']}{body}", unit if again in ("", unit) else f"{unit} {again}"
    behind = _BEHIND.fullmatch(text)
    if behind is None:
        return text, ""
    written = behind["unit"]
    is_marked = "\\" in written
    if not is_marked and _LETTERS.search(behind["body"]):
        return text, ""
    is_glued = not is_marked and written[0] != " " and text[behind.start("unit") - 1] != " "
    unit = _spell(written, is_glued)
    return (behind["body"].strip(), unit) if unit else (text, "")


def in_radians(text: str) -> str:
    """``30^\\circ`` as ``\\frac{30 \\cdot \\pi}{180}``, wherever a number of degrees stands."""
    return _DEGREES.sub(r"\\frac{\1 \\cdot \\pi}{180}", text)


def _spell(written: str, is_glued: bool) -> str:
    """One spelling of a unit, or nothing when the words are no unit."""
    plain = re.sub(r"\\frac ?\{(.*?\}) ?\} ?\{ ?(\\text.*)\}", r"\1/\2", written)
    plain = re.sub(r"\\text ?|[{}~]|\\cdot", " ", plain).replace("^\\circ", "°").strip(" .")
    if plain.startswith("°"):
        return plain.replace(" ", "").lower() if plain != "°" else "degree"
    words = re.sub(r"([/^]) ?| ?(/)", r" \1\2 ", plain).split()
    if not words or (is_glued and words[0] not in _ONE_SPELLING):
        return ""
    if "\\" not in written and not all(_may_stand_bare(word) for word in words):
        return ""
    if any(word.lower().strip(".") in _NO_NOUN for word in words if word != "a"):
        return ""
    unit = _join([_one(word) for word in words])
    return "" if unit.startswith("^") else unit


def _may_stand_bare(word: str) -> bool:
    """Whether a word outside ``\\text{}`` may be a unit: not the letters that are variables."""
    if len(word) == 1:
        return word in _BARE_LETTERS or not word.isalpha()
    return len(word) > 2 or word.lower() in _ONE_SPELLING or not word.isalpha()


def _one(word: str) -> str:
    """A word in the singular, by its short name where it has one."""
    word = word.strip(".,")
    for known in (word, word.lower()):
        if known in _ONE_SPELLING:
            return _ONE_SPELLING[known]
    singular = word.lower()
    singular = (
        singular[:-1] if singular.endswith("s") and len(singular) > 3 and not singular.endswith("ss") else singular
    )
    return _ONE_SPELLING.get(singular, singular)


def _join(words: list[str]) -> str:
    """``square cm``, ``cm squared`` and ``cm^2`` are one, ``per`` is a stroke."""
    joined: list[str] = []
    power = ""
    for word in words:
        if word in ("square", "sq", "cubic", "cu"):
            power = "^2" if word.startswith("sq") else "^3"
        elif word in ("squared", "cubed"):
            joined.append("^2" if word == "squared" else "^3")
        else:
            joined += ["/" if word == "per" else word, power]
            power = ""
    return "".join(joined)

"""One spelling for what means the same: the first step of the math checker, on gold and answer alike.

Only the writing changes here, never the value. No step needs more than one pass over the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import groupby

_NAMES = """
∞ infty ± pm ∓ mp × times ÷ div · cdot ⋅ cdot ∙ cdot ∗ cdot ≤ le ≥ ge ⩽ le ⩾ ge ≠ ne ≈ approx ≡ equiv ∪ cup ∩ cap
∈ in ∉ notin ∅ emptyset ∖ setminus → to ⇒ Rightarrow ⇔ Leftrightarrow ∠ angle △ triangle ∆ triangle ⊥ perp
∥ parallel ° degree º degree ˚ degree ∫ int ∑ sum ∏ prod ⟨ langle ⟩ rangle 〈 langle 〉 rangle ′ prime ℝ mathbb{R}
ℤ mathbb{Z} ℕ mathbb{N} ℚ mathbb{Q} ℂ mathbb{C} … ldots ⌊ lfloor ⌋ rfloor ⌈ lceil ⌉ rceil ¬ neg ∀ forall ∃ exists
⊂ subset ⊆ subseteq ℃ degree{}C
α alpha β beta γ gamma δ delta ε epsilon ϵ epsilon ζ zeta η eta θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi π pi
ρ rho σ sigma τ tau φ phi ϕ phi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Φ Phi Ψ Psi
Ω Omega
"""  # noqa: RUF001
"""A character, and the LaTeX command that it stands for."""
_FRACTIONS = "½1/2 ⅓1/3 ⅔2/3 ¼1/4 ¾3/4 ⅕1/5 ⅖2/5 ⅗3/5 ⅘4/5 ⅙1/6 ⅚5/6 ⅐1/7 ⅛1/8 ⅜3/8 ⅝5/8 ⅞7/8 ⅑1/9 ⅒1/10"
_SYMBOL_TABLE = str.maketrans(
    {
        **dict(zip(_NAMES.split()[::2], (f"\\{name} " for name in _NAMES.split()[1::2]), strict=True)),
        **{one[0]: "\\frac{{{}}}{{{}}}".format(*one[1:].split("/")) for one in _FRACTIONS.split()},
        **dict.fromkeys("−–‐‑﹣－", "-"),  # noqa: RUF001
        **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    }
)
_WORD_END = r"(?![A-Za-z])"
_FONTS = (
    "textrm|textbf|textit|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mathtt|mathcal|mbox|hbox|emph|bm|underline|"
    "boldsymbol"
)
_SIZES = (
    "left|right|middle|displaystyle|textstyle|scriptstyle|limits|nolimits|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|"
    "Biggr|bigg|Bigg|big|Big"
)
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|gcd|lcm|det"
_BASE_NAMES = "two three four five six seven eight nine ten eleven twelve sixteen"
_BASES = dict(zip(_BASE_NAMES.split(), (*range(2, 13), 16), strict=True))
_BASE_WORD = rf"_\{{?\s*\\text\s*\{{\s*({'|'.join(_BASES)})\s*\}}\s*\}}?"
_REWRITES: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Commands that change only how it looks.
        (rf"\\(?:left|right){_WORD_END}\s*\.(?!\d)|\\(?:{_SIZES}){_WORD_END}\s*", ""),
        (r"\\(?:label|tag)\*?\{[^{}]*\}", ""),
        (r"\\math(?:bin|rel|ord|op|punct|open|close)\s*\{([^{}]*)\}", r"\1"),
        (r"\{:\}|\\colon(?![A-Za-z])", ":"),
        (r"^\s*\*\*([^*]+)\*\*\s*$", r"\1"),
        (r"\*\*", "^"),
        (r"^\s*####|\\\\\s*$", ""),
        (r"^\s*(?:\\text\s*\{\s*)?(?i:(?:the )?(?:final )?answer)(?: is)?\s*:?\s*\}?\s*(?=[-+\\$(0-9])|^\s*=\s*", ""),
        # Radicals, fractions, binomials.
        (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"√\s*([0-9]+|[A-Za-z]|\{[^{}]*\})", r"\\sqrt{\1}"),
        (r"√\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\{\{([^{}]*)\}\}", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (rf"\\[dtc]frac{_WORD_END}", r"\\frac"),
        (r"\\frac\s*([0-9A-Za-z])\s*([0-9A-Za-z])", r"\\frac{\1}{\2}"),
        (r"\\frac\s*([0-9])\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9A-Za-z])", r"\1{\2}"),
        (rf"\\frac\s*(\\(?:pi|theta|alpha|beta)){_WORD_END}\s*([0-9A-Za-z])", r"\\frac{\1}{\2}"),
        (r"∛\s*([0-9A-Za-z]|\{[^{}]*\})", r"\\sqrt[3]{\1}"),
        (r"(\\sqrt\s*\[[^\[\]]*\])\s*([0-9A-Za-z])", r"\1{\2}"),
        (r"\\(?:nice|s)frac(?![A-Za-z])", r"\\frac"),
        (r"\u2044", "/"),
        (r"\\(?:dot|bar|overline)\s*(\d)|\\dot\s*\{\s*(\d)\s*\}", r"\\overline{\1\2}"),
        # Spaces, and the commas and spaces inside long numbers.
        (r"(?<=\d)(?:\{,\}|,?\\!,?(?:\\[!, ])*|\\,|\{\\,\}|\\[ ;:]|~)\s*(?=\d{3}(?!\d))", ""),
        (r"(?<=\d)\{,\}(?=\d)", "."),
        (rf"(?<!\\)\\(?:[!,;:>]|quad{_WORD_END}|qquad{_WORD_END}|(?=\s|$))|~", " "),
        (
            rf"\\(?:hspace|vspace|phantom|hphantom)\*?\s*\{{[^{{}}]*\}}|\\(?:enspace|thinspace|hfill|newline){_WORD_END}",
            " ",
        ),
        # Words.
        (rf"\\(?:{_FONTS}|operatorname|text)\*?\s*\{{\s*([ie])\s*\}}", r"\1"),
        (rf"\\(?:{_FONTS}|operatorname|text)\*?\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
        (rf"(?:,\s*)?\\(?:{_FONTS}|text)\s*\{{\s*,?\s*and\s*\}}\s*,?", ","),
        (rf"(?:,\s*)?\\(?:{_FONTS}|text)\s*\{{\s*,?\s*or\s*\}}\s*,?", r"\\lor "),
        (r"\\text\s*\{\s*,?\s*(?:for|where|with)(?: all| any| every| some)?(?: integers?)?\s*\}\s*(?=[a-z]\b)", ","),
        (r",?\s*(?<![A-Za-z\\])([a-z])\s*\\text\s*\{\s*(?:is )?an(?:y)? integer\s*\}", r", \1 \\in \\mathbb{Z}"),
        (rf"\\(?:{_FONTS}){_WORD_END}", r"\\text"),
        (rf"(?:,\s*)?(?<!\\)\band\b|\\land{_WORD_END}", ","),
        (rf"(?:,\s*)?(?:(?<!\\)\bor\b|\\lor{_WORD_END}|\\vee{_WORD_END})", r"\\lor "),
        (r"(?<![A-Za-z\\])(arcsin|arccos|arctan|sin|cos|tan|cot|ln|log|exp)(?![A-Za-z]{2})", r"\\\1 "),
        (r"\\arctg(?![A-Za-z])", r"\\arctan "),
        (r"\\log\s*_\s*\{?\s*e\s*\}?(?![A-Za-z])", r"\\ln "),
        (r"(?<=\d)\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*(?=\d)", ":"),
        (r"(?i:\\text\s*\{\s*(?:the set of )?all real(?:s| numbers)\s*\}|\ball real(?:s| numbers)\b)", r"\\mathbb{R}"),
        (r"\\(?:mathbb|Bbb|mathbf|text)\s*\{?\s*R\s*\}?(?=\s*(?:$|\\|-|[,;)}]))(?!\w)", r"\\mathbb{R}"),
        (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
        (r"\\in\s*\\(?:mathbf|text)\s*\{\s*([ZNQR])\s*\}", r"\\in \\mathbb{\1}"),
        (r"\\(?:backslash|smallsetminus)(?![A-Za-z])", r"\\setminus "),
        (r"(?<=\\mathbb\{R\})\s*-\s*(?=\\\{)", r"\\setminus "),
        (r"\\bigcup(?![A-Za-z_])|(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
        (r"\\bigcap(?![A-Za-z_])", r"\\cap "),
        (r"\\text\s*\{([0-9A-F]+)\}\s*(?=_)|[({]([0-9A-F]+)[)}]\s*(?=_)", r"\1\2"),
        (r"(?<=[0-9A-F])\s*(?:\\text\s*\{\s*)?(?:in )?\bbase\s*\}?\s*([0-9]+)\s*\}?", r"_{\1}"),
        (r"_\s*\{\s*\(([0-9]+)\)\s*\}", r"_{\1}"),
        (_BASE_WORD, lambda word: f"_{{{_BASES[word[1]]}}}"),
        (r"\(\s*([a-z]\s*\\in\s*\\mathbb\{Z\})\s*\)", r", \1"),
        # Signs with two names.
        (
            r"\\text\s*\{\s*(?:\\?%|percentage|per ?cent|pct)\s*\}|\\?%|\b(?:percentage|per ?cent|pct)\b\.?",
            r"\\%",
        ),
        (r"\\text\s*\{\s*\\?\$\s*\}", r"\\$"),
        (r"(?<=\d)\s*\^\s*\{?o\}?(?![A-Za-z])", r"^\\circ "),
        (r"\\degree\s*\{\}", r"^\\circ "),
        (rf"\^\s*\{{?\s*\\(?:circ|degree){_WORD_END}\s*\}}?|\\degree{_WORD_END}", r"^\\circ "),
        (rf"\\leq?{_WORD_END}|\\leqslant{_WORD_END}|\\leqq{_WORD_END}|<=|=<", r"\\le "),
        (rf"\\geq?{_WORD_END}|\\geqslant{_WORD_END}|\\geqq{_WORD_END}|>=", r"\\ge "),
        (rf"\\neq?{_WORD_END}|\\not\s*=|!=", r"\\ne "),
        (rf"\\lt{_WORD_END}", "<"),
        (rf"\\gt{_WORD_END}", ">"),
        (rf"\\varnothing{_WORD_END}|\\O{_WORD_END}", r"\\emptyset "),
        (r"\\\{\s*\\\}", r"\\emptyset "),
        (rf"\\lbrace{_WORD_END}", r"\\{"),
        (rf"\\rbrace{_WORD_END}", r"\\}"),
        (rf"\\(?:lvert|rvert|vert){_WORD_END}", "|"),
        (rf"\\(?:dots|cdots|dotsc|dotsb){_WORD_END}|\.\.\.", r"\\ldots "),
        (rf"\\var(epsilon|phi|theta|rho|sigma|kappa|pi){_WORD_END}", r"\\\1"),
        (rf"\\ast{_WORD_END}", "*"),
        (rf"\\(?:simeq|thickapprox|approxeq){_WORD_END}", r"\\approx "),
        (rf"\\(?:implies|Longrightarrow){_WORD_END}", r"\\Rightarrow "),
        (r"(?:(?<=^)|(?<=[(\[,]))\s*\+\s*(?=\\infty)", ""),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])(?:infinity|oo)(?![A-Za-z])", r"\\infty "),
        # Matrices.
        (r"\\\\\s*\[\s*[0-9.]+\s*(?:pt|em|ex|mm|cm)\s*\]", r"\\\\"),
        (r"[\[(]\s*\\begin\{array\}\s*\{[^{}]*\}", r"\\begin{pmatrix}"),
        (r"\\end\{array\}\s*[\])]", r"\\end{pmatrix}"),
        (r"\\begin\{(?:[bpB]|small|)matrix\}", r"\\begin{pmatrix}"),
        (r"\\end\{(?:[bpB]|small|)matrix\}", r"\\end{pmatrix}"),
        # One order for an exponent and an index on the same letter.
        (r"(\^(?:\{[^{}]*\}|[0-9A-Za-z]))\s*(_(?:\{[^{}]*\}|[0-9A-Za-z]))", r"\2\1"),
        (r"([_^])\{\s*([0-9A-Za-z])\s*\}", r"\1\2"),
        (r"\s+", " "),
    )
]
"""Patterns and their replacements, each applied once, in this order."""
_DOLLAR = re.compile(r"(?<!\\)\$")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_RAISED_OR_LOWERED = {"<super>": "^", "<sub>": "_"}
_WRAPPED = re.compile(
    r"\$\$?([^$]*)\$?\$?|\\\((.*)\\\)|\\\[(.*)\\\]|"
    r"\\(?:boxed|fbox) ?\{(.*)\}|\\text ?\{([^{}]*)\}|\{(.*)\}",
    re.DOTALL,
)
_SPACE = re.compile(r"(\\[A-Za-z]+) (?=[A-Za-z])|(?<!\d)\s+|\s+(?!\d)")
_MAX_WRAPPERS = 8


def normalize(text: str) -> str:
    """The text in one spelling: LaTeX for Unicode symbols, no spacing commands, no outer wrappers."""
    text = _BEYOND_ASCII.sub(_raised_and_lowered, text.translate(_SYMBOL_TABLE))
    text = unicodedata.normalize("NFKC", text).strip()
    if len(_DOLLAR.findall(text)) % 2 == 0:
        text = _DOLLAR.sub("", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _unwrap(text)


def _raised_and_lowered(run: re.Match[str]) -> str:
    """Characters written high or low as powers and indices: x² and aₙ, which NFKC would make x2 and an."""
    pieces = []
    for kind, group in groupby(run[0], lambda one: unicodedata.decomposition(one).partition(" ")[0]):
        characters = "".join(group)
        if kind in _RAISED_OR_LOWERED:
            characters = f"{_RAISED_OR_LOWERED[kind]}{{{unicodedata.normalize('NFKC', characters)}}}"
        pieces.append(characters)
    return "".join(pieces).replace("\u2212", "-")


def _unwrap(text: str) -> str:
    """Without delimiters, boxes or braces around the whole, nor a full stop or a stray dollar behind it."""
    for _ in range(_MAX_WRAPPERS):
        before = text
        text = text.strip().rstrip("$.;,").strip() if not text.startswith("$") else text.strip(" .;,")
        wrapped = _WRAPPED.fullmatch(text)
        if wrapped is not None and is_balanced(inner := next(filter(None, wrapped.groups()), "")):
            is_set = text.startswith("{") and "," in inner
            text = f"\\{{{inner}\\}}" if is_set else inner
        if text == before or text.startswith("\\{"):
            break
    return text


def is_balanced(text: str) -> bool:
    """Whether the braces of `text` close inside it, so that what was taken off around it was one pair."""
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def squeeze(text: str) -> str:
    """`text` without the blanks that carry no meaning; for comparing strings only."""
    return _SPACE.sub(lambda match: f"{match[1]} " if match[1] else "", text)

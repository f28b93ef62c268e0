"""Which language a sentence is in, by an optional package. Reward workers import it when a recipe asks for it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

_TOKEN = re.compile(r"[^\s\u3002\uff01\uff1f]++[\s\u3002\uff01\uff1f]*+|[\s\u3002\uff01\uff1f]++")
_SENTENCE_END = re.compile(r"[.!?:\u3002\uff01\uff1f\u0964][\"')\u201d]?\s*$|\n")
_MIN_LETTERS, _MAX_LETTERS = 40, 240
_MIN_PROBABILITY = 0.5
"""Below this, the package's guess that a sentence is in another language does not count."""
_ACCEPTED_AS_WELL = {"zh": {"yue", "wuu"}, "ar": {"ary", "arz"}, "no": {"nn"}, "en": {"pcm"}}
"""Languages close to a target, which the package often takes it for."""
_NO_LANGUAGE = "zxx"
"""ISO 639's code for what is no language."""


def sentences(text: str) -> Iterator[str]:
    """`text` cut at the ends of sentences and lines where 40 letters or more have come together, and at 240 anyway.

    Shorter pieces cannot be identified, and longer ones would let one language hide in the other. No word is cut.
    """
    kept: list[str] = []
    num_letters = 0
    for token in _TOKEN.findall(text):
        kept.append(token)
        num_letters += sum(map(str.isalpha, token))
        if num_letters >= _MAX_LETTERS or (num_letters >= _MIN_LETTERS and _SENTENCE_END.search(token)):
            yield "".join(kept)
            kept, num_letters = [], 0
    if kept:
        yield "".join(kept)


@lru_cache(maxsize=8)
def open_identifier(package: str, target: str) -> Callable[[str], bool]:
    """A function that says whether a sentence is in the target language: unless another one is more likely than not.

    In doubt a sentence is in the target, since formulas and names are nobody's language. Raises ValueError when the
    package is not there.
    """
    try:
        module = importlib.import_module(f"{package}.langid")
    except ImportError as error:
        raise ValueError(
            f"options.identifier={package!r}: not installed ({error}); pip install '{package}>=0.4', or leave the "
            "option out to go by script alone"
        ) from error
    identifier = module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True)
    accepted = {target, _NO_LANGUAGE, *_ACCEPTED_AS_WELL.get(target, ())}

    def is_target(sentence: str) -> bool:
        language, probability = identifier.classify(sentence)
        return language in accepted or probability < _MIN_PROBABILITY

    return is_target

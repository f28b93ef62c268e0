"""A penalty on saying the same thing again and again."""

from __future__ import annotations

from itertools import islice

from rewards.parts.options import RepetitionOptions
from rewards.records import ScoreRequest


def repetition_reward(request: ScoreRequest, options: RepetitionOptions) -> list[float]:
    """The n-gram repetition penalty of arXiv 2502.03373 (appendix C.2): ``(1 - unique / total) · max_penalty``.

    `total` is the number of runs of `ngram_size` words in the completion and `unique` how many of them differ. Words
    are what white space separates, lowercased; tags and punctuation belong to them. 0 for a text with fewer words
    than `ngram_size`, the empty one included. The whole completion is read, its thinking included, whatever its
    answer. Time grows linearly with the text.

    Where we differ: the paper's code applies it to wrong answers only, and its dense variant marks single tokens;
    recent TRL counts token ids instead of words. Scripts without blanks between words have few words here, so that
    for them the penalty sees repeated lines and not repeated phrases.
    """
    return [repetition_penalty(response.text, options) for response in request.responses]


def repetition_penalty(text: str, options: RepetitionOptions) -> float:
    """The penalty on one text, from `max_penalty` to 0."""
    words = text.lower().split()
    total = len(words) - options.ngram_size + 1
    if total < 1:
        return 0.0
    unique = len(set(zip(*(islice(words, start, None) for start in range(options.ngram_size)), strict=False)))
    return (1 - unique / total) * options.max_penalty + 0.0

"""Every reward that a recipe can name, in three tables by what it looks at. Together they name `OPTIONS_OF_REWARD`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rewards.parts.abstention import abstention_reward
from rewards.parts.checked import CheckedResponse
from rewards.parts.correctness import correctness_reward
from rewards.parts.format import format_reward
from rewards.parts.l1 import l1_exact_reward, l1_max_reward
from rewards.parts.language import language_reward
from rewards.parts.length import cosine_reward, length_reward, overlong_reward
from rewards.parts.options import LanguageOptions
from rewards.parts.repetition import repetition_reward
from rewards.parts.user import call_function, load_function
from rewards.records import Outcome, ScoreRequest
from rewards.spec import RewardSpec

Parts = Sequence[float | None]
"""A reward's part for each completion of a request, in their order; None where it has no opinion."""

TEXT_REWARDS: Mapping[str, Callable[..., Parts]] = {
    "language": language_reward,
    "repetition": repetition_reward,
}
"""``(request, options)``: these read what the model wrote, so they run in the workers."""

QUICK_REWARDS: Mapping[str, Callable[..., Parts]] = {"format": format_reward, "overlong": overlong_reward}
"""``(request, options)``: a few passes over the text or none, so that no worker is asked."""

OUTCOME_REWARDS: Mapping[str, Callable[..., Parts]] = {
    "correctness": correctness_reward,
    "length": length_reward,
    "cosine": cosine_reward,
    "l1_exact": l1_exact_reward,
    "l1_max": l1_max_reward,
    "abstention": abstention_reward,
}
"""``(request, checked, options)``: these depend on whether the answer is right."""


def reads_text(spec: RewardSpec) -> bool:
    """Whether the reward reads what the model wrote at length, so that a worker computes it."""
    return spec.is_user_function or spec.name in TEXT_REWARDS


def imports_more(spec: RewardSpec) -> bool:
    """Whether the reward imports what may not be there: a user's function, or an optional package."""
    if spec.is_user_function:
        return True
    options = spec.parsed_options()
    return isinstance(options, LanguageOptions) and options.identifier is not None


def open_text_reward(spec: RewardSpec) -> Callable[[ScoreRequest], Parts]:
    """The reward as a function of the request alone, with all that it needs imported and loaded.

    Raises ValueError when that cannot be had.
    """
    if spec.is_user_function:
        function = load_function(spec.name)
        return lambda request: call_function(function, request, spec.options)
    reward = partial(TEXT_REWARDS[spec.name], options=spec.parsed_options())
    reward(ScoreRequest("", "", "", "", ()))
    return reward


def parts_without_worker(spec: RewardSpec, request: ScoreRequest, checked: Sequence[CheckedResponse]) -> Parts:
    """The parts of a reward for which `reads_text` is false. Raises ValueError when the request lacks what it needs.

    A gold that cannot be used teaches nothing: no outcome-based reward has an opinion on any completion of its group,
    those without an answer included, since being paid for those alone would teach to answer anything.
    """
    options: Any = spec.parsed_options()
    if spec.name in QUICK_REWARDS:
        return QUICK_REWARDS[spec.name](request, options)
    if any(one.outcome is Outcome.GOLD_UNUSABLE for one in checked):
        return [None] * len(checked)
    return OUTCOME_REWARDS[spec.name](request, checked, options)

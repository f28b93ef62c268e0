"""Reward functions of the user's own, by dotted path. They run in the workers, under the same limits.

Two signatures:

* TRL's: ``fn(prompts, completions, **columns) -> list[float | None]``, called once a group with keyword
  arguments. ``prompts`` is the question repeated G times, ``completions`` the G texts (plain strings: the
  chat format, lists of role and content, is not imitated), and each column of the problem's row is a list of
  G equal values. ``completion_ids`` and ``trainer_state`` are not given. Arguments that the function does
  not name are left out unless it takes ``**kwargs``.
* Ours: a function whose first parameter is named ``request`` gets the `ScoreRequest`, and returns the same.

The options of the recipe are handed over as keyword arguments in both cases.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from rewards.records import ScoreRequest

UserFunction = Callable[..., Any]


def load_function(path: str) -> UserFunction:
    """The function at ``package.module:function`` or ``package.module.function``. Raises ValueError."""
    module_name, _, name = path.rpartition(":" if ":" in path else ".")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise ValueError(f"name={path!r}: {error}; put its folder on the Python path") from error
    except AttributeError as error:
        raise ValueError(f"name={path!r}: {error}; check the function's name") from error
    if not callable(function):
        raise ValueError(f"name={path!r}: it is no function; give the path of one")
    return function  # type: ignore[no-any-return]


def call_function(function: UserFunction, request: ScoreRequest, options: Mapping[str, Any]) -> list[float | None]:
    """One reward for each response. Raises when the function does, or when it returns anything else."""
    parameters = inspect.signature(function).parameters
    if next(iter(parameters), None) == "request":
        returned = function(request, **options)
    else:
        returned = function(**_accepted(parameters, {**_trl_arguments(request), **options}))
    rewards = [_as_reward(value) for value in returned]
    if len(rewards) != len(request.responses):
        raise ValueError(f"it returned {len(rewards)} rewards for {len(request.responses)} completions")
    return rewards


def _trl_arguments(request: ScoreRequest) -> dict[str, Any]:
    num_responses = len(request.responses)
    columns = {name: [value] * num_responses for name, value in request.columns.items()}
    texts = [response.text for response in request.responses]
    return {**columns, "prompts": [request.question] * num_responses, "completions": texts}


def _accepted(parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in parameters}


def _as_reward(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"it returned {value!r:.80} where a number or None belongs")
    reward = float(value)
    if not math.isfinite(reward):
        raise ValueError(f"it returned {reward}, which is not finite")
    return reward

"""From a recipe's names and options to the functions that they mean."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from grpo.errors import UserError
from grpo.objectives.corrections import CORRECTIONS
from grpo.objectives.table import get_objective
from grpo.objectives.tokens import Tokens
from grpo.recipe.sections import UpdateSection
from rewards.errors import did_you_mean
from rewards.parts.user import load_function

TokenLosses = Callable[[Tokens], Tensor]


def choose_objective(settings: UpdateSection) -> TokenLosses:
    """The function of `update.objective` with its options, tried out on a few tokens. Raises UserError."""
    objective = get_objective(settings.objective)
    where = f"update.objective={settings.objective}"
    function = _load(objective.function, where)
    options = {**objective.options, **settings.objective_options}
    chosen = _with_options(function, options, where, "update.objective_options")
    if fault := _fault_on_trial(chosen):
        raise UserError(f"{where}: {fault}")
    return chosen


def choose_correction(settings: UpdateSection) -> TokenLosses:
    """The function of `update.correction` with its options, from tokens to their weights. Raises UserError."""
    function = CORRECTIONS[settings.correction]
    where = f"update.correction={settings.correction}"
    return _with_options(function, settings.correction_options, where, "update.correction_options")


def _load(path: str, where: str) -> Callable[..., Tensor]:
    try:
        return load_function(path)
    except ValueError as error:
        reason = str(error).removeprefix(f"name={path!r}: ")
    except Exception as error:
        reason = f"its module raised {type(error).__name__}: {error}; mend it"
    raise UserError(f"{where}: {reason}")


def _with_options(
    function: Callable[..., Tensor], options: Mapping[str, Any], where: str, where_options: str
) -> TokenLosses:
    """The function with its options filled in, each checked against its annotation and none unknown."""
    known = _options_of(function, where)
    faults = list(_option_faults(known, options, where, where_options))
    if faults:
        raise UserError("\n".join(faults))
    return partial(function, **{name: _checker(known[name]).validate_python(value) for name, value in options.items()})


def _options_of(function: Callable[..., Tensor], where: str) -> dict[str, inspect.Parameter]:
    """What a function takes by name after the tokens, with annotations that are resolved."""
    try:
        hints = get_type_hints(function, include_extras=True)
        [_, *parameters] = inspect.signature(function).parameters.values()
    except (NameError, TypeError, ValueError) as error:
        advice = "take the tokens first, then options with annotations that can be resolved"
        raise UserError(f"{where}: its parameters cannot be read ({error}); {advice}") from None
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {one.name: one.replace(annotation=hints.get(one.name, Any)) for one in parameters if one.kind in named}


def _option_faults(
    known: Mapping[str, inspect.Parameter], options: Mapping[str, Any], where: str, where_options: str
) -> Iterator[str]:
    for name, value in options.items():
        if name not in known:
            advice = did_you_mean(name, known) if known else "it takes none"
            yield f"{where_options}.{name}={value!r}: unknown option; {advice}"
            continue
        try:
            _checker(known[name]).validate_python(value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            yield f"{where_options}.{name}={value!r}: {message[0].lower()}{message[1:]}; give such a value"
    for name, one in known.items():
        if one.default is one.empty and name not in options:
            yield f"{where_options}.{name}: missing; {where} has no default for it, so set it"


def _checker(parameter: inspect.Parameter) -> TypeAdapter[Any]:
    return TypeAdapter(parameter.annotation, config=ConfigDict(allow_inf_nan=False))


def _fault_on_trial(objective: TokenLosses) -> str | None:
    """What is wrong with an objective, seen on two completions of three and two tokens, the first pass of an update."""
    logps = torch.tensor([-0.5, -1.5, -0.1, -2.0, -0.7])
    tokens = Tokens(
        policy_logp=logps.clone().requires_grad_(),
        proximal_logp=logps,
        sampler_logp=logps + torch.tensor([0.01, -0.02, 0.0, 0.03, -0.01]),
        advantage=torch.tensor([1.0, 1.0, 1.0, -0.5, -0.5]),
        completion=torch.tensor([0, 0, 0, 1, 1]),
        num_completions=2,
    )
    try:
        losses = objective(tokens)
        if not isinstance(losses, Tensor) or losses.shape != logps.shape:
            found = f"a tensor {tuple(losses.shape)}" if isinstance(losses, Tensor) else f"{losses!r:.80}"
            return f"for 5 tokens it returned {found}; return one loss a token, as a tensor (5,)"
        if not losses.isfinite().all():
            return f"with an unmoved policy it returned {losses.tolist()}; return finite numbers"
        coefficients = _coefficients(losses, tokens.policy_logp)
    except Exception as error:
        return f"on 5 made-up tokens it raised {type(error).__name__}: {error}; mend it"
    if not all(math.isfinite(value) for value in coefficients):
        return f"its derivatives by tokens.policy_logp are {coefficients}; mend what is not finite"
    if not any(coefficients):
        return (
            "it does not depend on tokens.policy_logp, so that nothing would be learnt; use that without detaching it"
        )
    return None


def _coefficients(losses: Tensor, policy_logp: Tensor) -> list[float]:
    if not losses.requires_grad:
        return [0.0]
    [gradient] = torch.autograd.grad(losses.sum(), policy_logp, allow_unused=True)
    return [0.0] if gradient is None else gradient.tolist()

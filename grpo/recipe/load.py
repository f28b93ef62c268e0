"""From a YAML file and overrides to a checked recipe, every fault named at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from grpo.errors import RecipeError
from grpo.recipe.contradictions import contradictions
from grpo.recipe.sections import Recipe
from rewards.errors import did_you_mean


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe. Raises RecipeError with every fault at once.

    An override is ``section.key=value``; the value is read as YAML, and a list's entry is named by its number:
    ``rewards.0.weight=2``.
    """
    document = _read(path)
    for override in overrides:
        _apply(document, override)
    return parse_recipe(document, str(path))


def parse_recipe(document: Mapping[str, Any], where: str) -> Recipe:
    """Check a recipe that is already a mapping; `where` names it in errors."""
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        faults = [_describe(fault) for fault in error.errors(include_url=False)]
        raise RecipeError("\n".join([f"{where}: {len(faults)} fault(s)", *faults])) from None
    clashes = list(contradictions(recipe))
    if clashes:
        raise RecipeError("\n".join([f"{where}: {len(clashes)} contradiction(s)", *clashes]))
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe={path}: not UTF-8 text ({error}); give the path of a YAML file") from None
    except OSError as error:
        raise RecipeError(f"recipe={path}: {error.strerror}; give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe={path}: not valid YAML: {error}; mend the file") from None
    if not isinstance(document, dict):
        raise RecipeError(f"recipe={path}: not a mapping of sections; see launch/recipes for examples")
    return document


def _apply(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override={override}: not of the form section.key=value; write it so")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"override={override}: the value is not valid YAML; quote it") from None
    *parents, last = key.split(".")
    target: Any = document
    for parent in parents:
        target = _enter(target, parent, override)
    if isinstance(target, list):
        target[_index(target, last, override)] = value
    else:
        target[last] = value


def _enter(target: Any, key: str, override: str) -> Any:
    if isinstance(target, list):
        return target[_index(target, key, override)]
    inner = target.get(key)
    if not isinstance(inner, dict | list):
        inner = target[key] = {}
    return inner


def _index(target: list[Any], key: str, override: str) -> int:
    if not key.isdigit() or int(key) >= len(target):
        raise RecipeError(f"override={override}: {key} is no entry of a list of {len(target)}; count from 0")
    return int(key)


def _describe(fault: ErrorDetails) -> str:
    location = fault["loc"]
    where = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        advice = did_you_mean(str(location[-1]), _known_keys(location[:-1]))
        return f"{where}={fault['input']!r}: unknown key; {advice}"
    if fault["type"] == "missing":
        return f"{where}: missing; this key has no default, so set it"
    message = fault["msg"].removeprefix("Value error, ")
    return message if message.startswith(where) else f"{where}={fault['input']!r}: {message[0].lower()}{message[1:]}"


def _known_keys(parents: Sequence[int | str]) -> list[str]:
    model: Any = Recipe
    for part in parents:
        if isinstance(part, int):
            continue
        model = _section_of(model.model_fields[part].annotation)
    return list(model.model_fields)


def _section_of(annotation: Any) -> Any:
    """The model inside ``Section``, ``tuple[Section, ...]`` and the like."""
    inner = [arg for arg in getattr(annotation, "__args__", ()) if isinstance(arg, type)]
    return inner[0] if inner else annotation

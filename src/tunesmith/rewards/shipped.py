"""The shipped rewards by name."""

from __future__ import annotations

import difflib
import importlib
from typing import Any, Final

from pydantic import ValidationError

from ..errors import UsageError
from .base import Shipped

SHIPPED: Final = {
    "exact_match": "compare:ExactMatch",
    "normalized_match": "text:NormalizedMatch",
    "contains": "text:Contains",
    "numeric": "compare:Numeric",
    "math": "compare:MathEqual",
    "json_fields": "compare:JsonFields",
    "token_f1": "text:TokenF1",
    "rouge_l": "text:RougeL",
    "bleu": "text:Bleu",
    "chrf": "text:Chrf",
    "regex": "form:Regex",
    "json": "form:Json",
    "json_schema": "form:JsonSchema",
    "length": "form:Length",
    "think_format": "form:ThinkFormat",
    "repetition": "form:Repetition",
    "overlong": "form:Overlong",
}
"""Name in a recipe -> module and class."""


def shipped_class(name: str) -> type[Shipped]:
    """The class of a shipped reward.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in SHIPPED:
        near = difflib.get_close_matches(name, SHIPPED, n=1)
        raise UsageError(
            f"There is no reward {name}.",
            why=f"Shipped are {', '.join(SHIPPED)}.",
            fix=f"Did you mean {near[0]}?" if near else "A function of your own is named FILE.py:NAME.",
        )
    module, _, attribute = SHIPPED[name].partition(":")
    found: type[Shipped] = getattr(importlib.import_module(f".{module}", __package__), attribute)
    return found


def make_shipped(name: str, arguments: dict[str, Any]) -> Shipped:
    """A shipped reward with its arguments.

    Raises:
        UsageError: there is none of that name, or it takes other arguments.
        EnvironmentLacksError: a package that it needs isn't installed.
    """
    kind = shipped_class(name)
    try:
        return kind.model_validate(arguments)
    except ValidationError as error:
        raise _explained(name, kind, error) from None


def _explained(name: str, kind: type[Shipped], error: ValidationError) -> UsageError:
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    field = ".".join(str(part) for part in first["loc"])
    known = [info.alias or own for own, info in kind.model_fields.items()]
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, known, n=1)
        fix = f"Did you mean {near[0]}?" if near else f"It takes {', '.join(known) or 'none'}."
        return UsageError(f"Reward {name} takes no {field}.", why="An unknown argument would do nothing.", fix=fix)
    if first["type"] == "missing":
        return UsageError(
            f"Reward {name} needs {field}.",
            why=f"{kind.summary()}",
            fix=f"Write `{{name: {name}, arguments: {{{field}: ...}}}}`.",
        )
    said = f"{field} can't be {first['input']!r}" if field else "its arguments don't go together"
    return UsageError(f"Reward {name}: {said}.", why=f"{first['msg']}.", fix="Correct it in `rewards:`.")

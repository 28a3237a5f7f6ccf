"""Personas: who the simulated users of an evaluation's conversations are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import Field, ValidationError

from ..errors import UsageError
from .load import RecipeLoader
from .section import Section

_FIX: Final = "Write JSON Lines or a YAML list, each with name and description, and if you like with goal and opening."


class Persona(Section):
    """Somebody who talks with a model to get something."""

    name: str = Field(pattern=r"\S", description="Unlike the other personas'")
    description: str = Field(pattern=r"\S", description="Who it is, and how it talks")
    goal: str | None = Field(default=None, pattern=r"\S", description="What it wants of the conversation")
    opening: str | None = Field(default=None, pattern=r"\S", description="What it says first; default: made up")


def read_personas(path: Path) -> list[Persona]:
    """The personas in a file: JSON Lines (`.jsonl`), or else a list in YAML or JSON.

    Raises:
        UsageError: the file can't be read, or holds something else, no persona, or two of one name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = _lines(text) if path.suffix == ".jsonl" else list(enumerate(_listed(text), start=1))
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(path, str(error)) from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise _refused(path, " ".join(str(error).split())) from None
    unit = "line" if path.suffix == ".jsonl" else "persona"
    personas = [_persona(value, f"{path} {unit} {number}") for number, value in values]
    if not personas:
        raise _refused(path, "it holds no persona")
    name, times = Counter(persona.name for persona in personas).most_common(1)[0]
    if times > 1:
        raise _refused(path, f"{times} personas are called {name}")
    return personas


def _lines(text: str) -> list[tuple[int, Any]]:
    """The values of JSON Lines with their numbers, from 1; blank lines are passed over."""
    values = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append((number, json.loads(line)))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return values


def _listed(text: str) -> list[Any]:
    values = yaml.load(text, Loader=RecipeLoader)
    if not isinstance(values, list):
        raise ValueError("it isn't a list of personas")
    return values


def _persona(value: Any, where: str) -> Persona:
    try:
        return Persona.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{where} isn't a persona.", why=f"{f'{key}: ' if key else ''}{first['msg']}.", fix=_FIX
        ) from None


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(f"The personas in {path} can't be read.", why=f"{why}.", fix=_FIX)

"""Popular models by name, from a shipped and dated table, for when the Hub can't be reached."""

from __future__ import annotations

import difflib
import functools
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_atomic
from ..records import ModelKind
from .table import read_table

# How families mark their models' names, in the order of precedence: Qwen3-8B-Base, gemma-3-4b-pt, gemma-3-4b-it.
_MARKS: dict[ModelKind, re.Pattern[str]] = {
    "base": re.compile(r"[-_.]base([-_.]|$)|\d[bm]-pt([-_.]|$)", re.IGNORECASE),
    "reasoning": re.compile(r"(^|[-_.])(think|thinking|reasoning|r1|qwq)([-_.]|$)", re.IGNORECASE),
    "instruct": re.compile(r"[-_.](instruct|it|chat|sft|dpo|rlvr)([-_.]|$)", re.IGNORECASE),
}
# English text of the Llama 3 report: 3.17 characters per token with Llama 2's 32,000 tokens, 3.94 with 128,000
# (Grattafiori et al. 2024, The Llama 3 Herd of Models, section 3.2). Between and beyond, by the logarithm of the size.
_CHARACTERS, _VOCABULARY, _PER_DOUBLING = 3.17, 32_000, (3.94 - 3.17) / 2
TOKEN_ERROR = 0.25
"""Relative error to state with token counts that are estimated from bytes; other languages and code are further off."""


@dataclass(frozen=True)
class KnownModel:
    """A row of the table.

    Attributes:
        name: Id on the Hub.
        family: Its family.
        config: The values of config.json that memory and time depend on; Transformers can build the model from them.
        parameters: As the Hub states them, a tied output head left out.
        kind: What it was trained for.
        has_template: Whether it brings a chat template.
        licence: As the Hub names it.
        gated: Whether terms must be accepted; None where that changed over time.
        as_of: Date of the table.
    """

    name: str
    family: str
    config: Mapping[str, Any]
    parameters: int
    kind: ModelKind
    has_template: bool
    licence: str
    gated: bool | None
    as_of: str


@functools.cache
def known_models() -> dict[str, KnownModel]:
    """The models of the table, by their lower-case ids."""
    table = read_table("families")
    return {
        name.lower(): _known(name, family, size, table["as_of"])
        for family in table["families"]
        for size in family["sizes"]
        for name in size["models"]
    }


def _known(name: str, family: Mapping[str, Any], size: Mapping[str, Any], as_of: str) -> KnownModel:
    kind = _marked(name) or family["plain"]
    return KnownModel(
        name=name,
        family=family["family"],
        config={"dtype": "bfloat16", **family["config"], **size["config"]},
        parameters=size["parameters"],
        kind=kind,
        has_template=family["template"] == "all" or kind != "base",
        licence=size.get("licence", family["licence"]),
        gated=family["gated"],
        as_of=as_of,
    )


def find_known(name: str) -> KnownModel | None:
    """The table's row of a Hub id, whatever its case."""
    return known_models().get(name.lower())


def near_names(name: str) -> list[str]:
    """Up to three ids of the table that are spelt most like `name`."""
    near = difflib.get_close_matches(name.lower(), known_models(), n=3)
    return [known_models()[match].name for match in near]


def tuned_siblings(name: str) -> list[str]:
    """The tuned models of the table that have the sizes of a base model: what SFT would usually start from."""
    base = find_known(name)
    if base is None:
        return []
    return [
        other.name
        for other in known_models().values()
        if (other.family, other.parameters) == (base.family, base.parameters) and other.kind != "base"
    ]


def kind_of(name: str) -> ModelKind:
    """What a model was trained for, by the marks of its name, or by how its family uses names without one."""
    last = name.rstrip("/").rpartition("/")[2]
    marked = _marked(last)
    if marked:
        return marked
    for family in read_table("families")["families"]:
        if last.lower().startswith(family["prefix"].lower()):
            plain: ModelKind = family["plain"]
            return plain
    return "unknown"


def _marked(name: str) -> ModelKind | None:
    return next((kind for kind, mark in _MARKS.items() if mark.search(name)), None)


def write_config(model: KnownModel) -> Path:
    """A folder in the user's cache with the config.json of a row, as Transformers reads it.

    Raises:
        EnvironmentLacksError: the cache can't be written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "tunesmith" / "models" / model.as_of / model.name.replace("/", "--")
    content = json.dumps(dict(model.config), indent=2) + "\n"
    file = folder / "config.json"
    if not file.exists() or file.read_text(encoding="utf-8") != content:
        write_atomic(file, content)
    return folder


def bytes_per_token(vocabulary: int) -> float:
    """UTF-8 bytes of English text per token, by the size of the vocabulary; see TOKEN_ERROR."""
    doublings = math.log2(max(vocabulary, 256) / _VOCABULARY)
    return max(1.0, _CHARACTERS + _PER_DOUBLING * doublings)

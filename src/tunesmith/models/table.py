"""Reading the tables of facts that ship with the package."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

_FOLDER = Path(__file__).parent / "tables"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is built in, is six times faster


@functools.cache
def read_table(name: str) -> dict[str, Any]:
    """The table of this name."""
    table: dict[str, Any] = yaml.load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), _LOADER)
    return table

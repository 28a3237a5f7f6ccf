"""The table of docs/data-layouts.md, read: each of its rows is a test."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DOC = Path(__file__).parents[2] / "docs" / "data-layouts.md"
_CELL = re.compile(r"(?<!\\)\|")
_METHODS = (("sft",), ("dpo", "reward"), ("kto",), ("grpo", "rloo"), ("clm",))


@dataclass(frozen=True)
class Documented:
    """A row of the table; for each method READY, INCOMPATIBLE, or a fragment of a recipe's `data:`."""

    name: str
    layout: str
    row: dict[str, Any]
    verdicts: dict[str, str | dict[str, Any]]

    def mapping(self, method: str) -> dict[str, str]:
        verdict = self.verdicts[method]
        return verdict.get("mapping", {}) if isinstance(verdict, dict) else {}

    def filter(self, method: str) -> dict[str, Any]:
        verdict = self.verdicts[method]
        return verdict.get("filter", {}) if isinstance(verdict, dict) else {}

    @property
    def trained(self) -> list[str]:
        return [method for method, verdict in self.verdicts.items() if verdict != "INCOMPATIBLE"]


def documented() -> list[Documented]:
    lines = DOC.read_text(encoding="utf-8").split("| layout | name in reports |")[1].splitlines()
    return [_parse(line) for line in lines[2:] if line.startswith("|")]


def _parse(line: str) -> Documented:
    name, layout, row, *cells = [cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]]
    verdicts = {method: _verdict(cell) for methods, cell in zip(_METHODS, cells, strict=True) for method in methods}
    return Documented(name, layout, json.loads(row.strip("`")), verdicts)


def _verdict(cell: str) -> str | dict[str, Any]:
    if cell in ("READY", "no"):
        return "READY" if cell == "READY" else "INCOMPATIBLE"
    return dict(yaml.safe_load("{" + cell.strip("`") + "}"))

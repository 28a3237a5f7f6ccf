"""`tunesmith schema [NAME]`."""

from __future__ import annotations

import argparse
from typing import Any

from pydantic import BaseModel

from .. import records
from ..recipe import Recipe
from .common import add_json
from .output import Output

SCHEMAS: dict[str, type[BaseModel]] = {
    "recipe": Recipe,
    "data-report": records.DataReport,
    "preparation": records.Preparation,
    "plan": records.Plan,
    "run": records.RunRecord,
    "event": records.Event,
    "eval-report": records.EvalReport,
    "manifest": records.Manifest,
    "receipt": records.Receipt,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "name",
        nargs="?",
        default="recipe",
        choices=list(SCHEMAS),
        metavar="NAME",
        help=f"one of {', '.join(SCHEMAS)} (default: recipe)",
    )
    add_json(parser)


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of the recipe (as it is written) or of a record (as it is saved)."""
    schema = SCHEMAS[name].model_json_schema(mode="validation" if name == "recipe" else "serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def run(arguments: argparse.Namespace) -> int:
    """Print a JSON Schema."""
    Output(as_json=True).record(schema_of(arguments.name))
    return 0

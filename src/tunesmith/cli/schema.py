"""`tunesmith schema [NAME]`."""

from __future__ import annotations

import argparse

from pydantic import BaseModel

from .. import records
from ..recipe import Recipe
from .output import Output

SCHEMAS: dict[str, type[BaseModel]] = {
    "recipe": Recipe,
    "data-report": records.DataReport,
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


def run(arguments: argparse.Namespace) -> int:
    """Print a JSON Schema."""
    schema = SCHEMAS[arguments.name].model_json_schema(
        mode="serialization" if arguments.name != "recipe" else "validation"
    )
    Output(as_json=True).record({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    return 0

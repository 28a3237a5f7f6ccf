"""From raw data to a fine-tuned language model that is proven to be right.

The stages, in order: `inspect`, `make_plan`, `prepare_run`, `train_run`, `evaluate_run`, `export_run`, `write_receipt`;
`tune` is all of them. They stand in `tunesmith.pipeline` and exchange records (`tunesmith.records`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import TunesmithError as TunesmithError
    from .pipeline import evaluate_run as evaluate_run
    from .pipeline import export_run as export_run
    from .pipeline import inspect as inspect
    from .pipeline import make_plan as make_plan
    from .pipeline import prepare_run as prepare_run
    from .pipeline import train_run as train_run
    from .pipeline import tune as tune
    from .pipeline import write_receipt as write_receipt
    from .recipe import Recipe as Recipe
    from .recipe import load_recipe as load_recipe
    from .records import Plan as Plan
    from .records import Receipt as Receipt

__version__ = "0.1.0"

# Name -> module; loaded when used, so that importing the package costs nothing. No name is a subpackage's too, since
# importing the subpackage would hide it.
_PUBLIC = {
    "Plan": "records",
    "Receipt": "records",
    "Recipe": "recipe",
    "TunesmithError": "errors",
    "evaluate_run": "pipeline",
    "export_run": "pipeline",
    "inspect": "pipeline",
    "load_recipe": "recipe",
    "make_plan": "pipeline",
    "prepare_run": "pipeline",
    "train_run": "pipeline",
    "tune": "pipeline",
    "write_receipt": "pipeline",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - all names of _PUBLIC are strings


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)

"""From raw data to a fine-tuned language model that is proven to be right.

The stages, in order: `inspect`, `plan`, `prepare_run`, `train`, `evaluate`, `export`, `write_receipt`; `tune` is all of them.
Each takes and gives records (`Plan`, `Receipt` and others in `tunesmith.records`); see `tunesmith.pipeline`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import TunesmithError
    from .pipeline import evaluate, export, inspect, plan, prepare_run, train, tune, write_receipt
    from .recipe import Recipe, load_recipe
    from .records import Plan, Receipt

__version__ = "0.1.0"

# Name -> module; loaded when used, so that importing the package costs nothing.
_PUBLIC = {
    "TunesmithError": "errors",
    "Plan": "records",
    "Receipt": "records",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "evaluate": "pipeline",
    "export": "pipeline",
    "inspect": "pipeline",
    "plan": "pipeline",
    "prepare_run": "pipeline",
    "train": "pipeline",
    "tune": "pipeline",
    "write_receipt": "pipeline",
}

__all__ = [
    "Plan",
    "Receipt",
    "Recipe",
    "TunesmithError",
    "__version__",
    "evaluate",
    "export",
    "inspect",
    "load_recipe",
    "plan",
    "prepare_run",
    "train",
    "tune",
    "write_receipt",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)

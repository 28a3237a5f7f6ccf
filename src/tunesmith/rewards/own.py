"""A reward function of the user's own, FILE.py:NAME. Its file is run: call this only for one that a recipe names."""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .called import RewardError


def load_own(reference: str) -> Callable[..., Any]:
    """The function NAME of FILE.py; the file may import its neighbours.

    Raises:
        RewardError: the file can't be run, or has no such function.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    try:
        if not path.is_file():
            raise FileNotFoundError(f"there is no Python file {path}")
        function: Any = getattr(_module(path.resolve(), path.stat().st_mtime_ns), name, None)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit of a script without a main guard, too
        raise RewardError("import", f"{type(error).__name__}: {error}".splitlines()[0]) from error
    if not callable(function):
        raise RewardError("missing", name)
    found: Callable[..., Any] = function
    return found


@functools.cache
def _module(path: Path, _written: int) -> types.ModuleType:
    """The module of a file, run once for all its functions."""
    # A name that no other module has: a file called json.py must not become everybody's json.
    spec = importlib.util.spec_from_file_location(f"tunesmith_own_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

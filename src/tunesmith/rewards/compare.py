"""Rewards of answers that agree with the row's right answer."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from pydantic import Field

from ..errors import EnvironmentLacksError
from .base import Compared

_NUMBER: Final = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?")
_MARKED: Final = re.compile(r"\$|\\boxed|\\\(|\\\[")
_WORD: Final = re.compile(r"(?<!\\)\b(?!(?:sqrt|sin|cos|tan|log|ln|exp|pi)\b)[A-Za-z]{2,}")
_PLAIN: Final = re.compile(r"[-+\d.,/%\s]*")
_SECONDS: Final = 2


class ExactMatch(Compared):
    """1 where the answer is the right one, 0 elsewhere; blanks around it don't count."""

    share = True

    ignore_case: bool = Field(default=False, description="Take capital and small letters for the same")

    def compare(self, said: str, right: str) -> float:
        """1.0 or 0.0."""
        texts = (said.strip(), right.strip())
        first, second = (text.casefold() for text in texts) if self.ignore_case else texts
        return float(first == second)


class Numeric(Compared):
    """1 where the answer's last number equals the right answer's, 0 elsewhere; 1,000 is 1000."""

    share = True

    relative: float = Field(default=1e-6, ge=0, allow_inf_nan=False, description="Difference allowed, of the number")
    absolute: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Difference allowed, in itself")

    def compare(self, said: str, right: str) -> float | None:
        """1.0 or 0.0; None where the right answer has no number."""
        wanted, given = _last_number(right), _last_number(said)
        if wanted is None:
            return None
        return float(given is not None and math.isclose(given, wanted, rel_tol=self.relative, abs_tol=self.absolute))


def _last_number(text: str) -> float | None:
    numbers = [float(match.group().replace(",", "")) for match in _NUMBER.finditer(text)]
    return numbers[-1] if numbers and math.isfinite(numbers[-1]) else None


class MathEqual(Compared):
    r"""1 where the answer is mathematically equal to the right one, 0 elsewhere: 1/2, 0.5 and \boxed{\frac12} agree.

    math-verify reads both and compares them with SymPy. It is stopped after two seconds, which it can be in a process's
    main thread only, where trainers call rewards.
    """

    share = True

    def compare(self, said: str, right: str) -> float | None:
        """1.0 or 0.0; None where the right answer is no mathematics."""
        if threading.current_thread() is not threading.main_thread():
            return self._compare(said, right, None)
        with _alarm_kept():
            return self._compare(said, right, _SECONDS)

    def _compare(self, said: str, right: str, limit: int | None) -> float | None:
        wanted = _expressions(right, limit)
        if not wanted:
            return None
        return float(_math_verify().verify(wanted, _expressions(said, limit), timeout_seconds=limit))

    def model_post_init(self, _context: Any) -> None:
        """Raise where math-verify isn't installed."""
        _math_verify()


@contextlib.contextmanager
def _alarm_kept() -> Iterator[None]:
    """Gives the process's alarm back to whoever had set it: math-verify limits its time by the same one."""
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    began = time.monotonic()
    try:
        yield
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, left - (time.monotonic() - began)), interval)


def _expressions(text: str, limit: int | None) -> Any:
    """The last expression of a text. Unmarked, math-verify would find only the 1 of x + 1: such gets dollars."""
    bare = text.strip() and not any(pattern.search(text) for pattern in (_MARKED, _WORD)) and not _PLAIN.fullmatch(text)
    return _math_verify().parse(f"${text}$" if bare else text, parsing_timeout=limit)


def _math_verify() -> Any:
    try:
        return importlib.import_module("math_verify")
    except ImportError:
        raise EnvironmentLacksError(
            "The reward math needs math-verify, which isn't installed.",
            why="It reads LaTeX and compares expressions.",
            fix="pip install 'tunesmith[math]'",
        ) from None


class JsonFields(Compared):
    """Share of the fields of a JSON object that are as in the right answer; a field that it adds is one wrong more.

    Equal fields / fields of either, at the top level. It leads towards the right object where exact_match is still 0
    for every answer of a group.
    """

    fields: list[str] | None = Field(default=None, min_length=1, description="Names of the fields that count: all")

    def compare(self, said: str, right: str) -> float | None:
        """From 0.0 to 1.0; None where the right answer is no JSON object."""
        wanted, given = _fields(right), _fields(said)
        if wanted is None:
            return None
        if given is None:
            return 0.0
        names = [name for name in wanted.keys() | given.keys() if self.fields is None or name in self.fields]
        return sum(wanted.get(name) == given.get(name) for name in names) / len(names) if names else 1.0


def _fields(text: str) -> dict[str, str] | None:
    """The fields of a JSON object, each value as its JSON text: true isn't 1."""
    value = read_json(text)
    return {name: json.dumps(held, sort_keys=True) for name, held in value.items()} if isinstance(value, dict) else None


def read_json(text: str) -> Any:
    """The value of a JSON text; `...` where it is none, as null is a value."""

    def refused(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, parse_constant=refused)
    except (ValueError, RecursionError):
        return ...

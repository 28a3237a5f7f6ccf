"""What a judge's answer says: grades, or why it has none. Nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...rewards.answer import Answer as Reasoned
from .rubric import HIGHEST, LOWEST, Grades

FIRST, SECOND = "conversation 1", "conversation 2"
"""What a judge calls the two conversations, in its question and in its answer."""


@dataclass(frozen=True)
class Reading:
    """Grades of the conversation that was shown first and of the other, and the judge's own word on them."""

    first: Grades
    second: Grades
    reason: str = ""


class UnreadableError(Exception):
    """An answer that holds no grades on the scale; its text says why, for the judge."""


def read(text: str, names: Sequence[str]) -> Reading:
    """The grades in a judge's answer: one JSON object, wherever it stands; reasoning before it isn't looked at.

    Args:
        text: The answer.
        names: Of the criteria.

    Raises:
        UnreadableError: there is no such object, or several that differ; a grade is missing, no whole number, or off
            the scale.
    """
    found = [one for one in _objects(Reasoned(text, (), {}).final) if one.keys() & {FIRST, SECOND}]
    if not found:
        raise UnreadableError(f'it has no JSON object with "{FIRST}" and "{SECOND}"')
    readings = [
        Reading(_grades(one, FIRST, names), _grades(one, SECOND, names), _reason(one.get("reason"))) for one in found
    ]
    if any((one.first, one.second) != (readings[0].first, readings[0].second) for one in readings):
        raise UnreadableError("it has several JSON objects that differ")
    return readings[0]


def readable(text: str, names: Sequence[str]) -> bool:
    """Whether `read` finds grades in a judge's answer."""
    try:
        read(text, names)
    except UnreadableError:
        return False
    return True


def _grades(whole: dict[str, Any], which: str, names: Sequence[str]) -> Grades:
    given = whole.get(which)
    if not isinstance(given, dict):
        raise UnreadableError(f'"{which}" has no grades')
    return {name: _grade(given.get(name), f'"{name}" of {which}') for name in names}


def _grade(given: Any, what: str) -> int:
    if given is None:
        raise UnreadableError(f"{what} has no grade")
    # True equals 1, and is no grade.
    if type(given) not in (int, float) or given not in range(LOWEST, HIGHEST + 1):
        shown = json.dumps(given)[:20]
        raise UnreadableError(f"{what} is {shown}, not a whole number from {LOWEST} to {HIGHEST}")
    return int(given)


def _reason(given: Any) -> str:
    return given.strip() if isinstance(given, str) else ""


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost JSON objects in a text, one after the other."""
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    at = text.find("{")
    while at >= 0:
        try:
            value, at = decoder.raw_decode(text, at)
        except RecursionError:
            return  # Python reads about a thousand levels; to begin anew at each of them would take its time
        except ValueError:
            at += 1
        else:
            yield value
        at = text.find("{", at)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, unless a key stands in it twice, so that nobody knows which of the values is meant."""
    whole = dict(pairs)
    if len(whole) != len(pairs):
        raise UnreadableError("a key stands twice in its JSON object")
    return whole

"""Conversations written out as one text: glaive's USER and ASSISTANT, and the Human and Assistant of HH-RLHF."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from .rows import Row

_ROLES: Final = {
    "SYSTEM": "system",
    "USER": "user",
    "HUMAN": "user",
    "ASSISTANT": "assistant",
    "FUNCTION RESPONSE": "tool",
}
_SPEAKER: Final = re.compile(
    r"(?:^|\n)[^\S\n]*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE|Human|Assistant):(?:[^\S\n]|(?=\n|$))"
)
_CALL: Final = re.compile(r"<functioncall>\s*(\{.*)", re.DOTALL)
_QUOTED: Final = re.compile(r"(\"arguments\"\s*:\s*)'(.*)'(\s*\}\s*)$", re.DOTALL)
_END: Final = "<|endoftext|>"


def is_transcript(text: str) -> bool:
    """Whether a text begins with a speaker's name, and somebody answers."""
    first = _SPEAKER.search(text)
    return first is not None and not text[: first.start()].strip() and _SPEAKER.search(text, first.end()) is not None


def read_transcript(text: str) -> list[Row]:
    """The turns of a transcript, as role and content; glaive's `<functioncall>` becomes a tool call.

    Space around a turn and glaive's end mark belong to the way of writing; all else is kept.
    """
    found = list(_SPEAKER.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [_turn(_ROLES[match[1].upper()], text[match.end() : end]) for match, end in zip(found, ends, strict=True)]


def _turn(role: str, text: str) -> Row:
    content = text.strip().removesuffix(_END).strip()
    call = _CALL.search(content) if role == "assistant" else None
    parsed = _parse_call(call[1]) if call else None
    if call is None or parsed is None:
        return {"role": role, "content": content}
    calls = [{"type": "function", "function": parsed}]
    return {"role": role, "content": content[: call.start()].strip(), "tool_calls": calls}


def _parse_call(text: str) -> dict[str, Any] | None:
    """A call whose arguments are JSON, or JSON in single quotes as glaive has it."""
    quoted = _QUOTED.search(text)
    try:
        if quoted:
            text = f"{text[: quoted.start()]}{quoted[1]}{json.dumps(json.loads(quoted[2]))}{quoted[3]}"
        call = json.loads(text)
        arguments = call["arguments"]
        call["arguments"] = json.loads(arguments) if isinstance(arguments, str) else arguments
        return {"name": call["name"], "arguments": call["arguments"]}
    except (ValueError, KeyError, TypeError):
        return None


def split_functions(system: str) -> tuple[str, list[Any]]:
    """A system message of glaive's as its text and the functions that stand in it as JSON objects."""
    text = system.strip().removeprefix("SYSTEM:").strip()
    start = text.find("{")
    if start < 0:
        return text, []
    decoder, functions, at = json.JSONDecoder(), [], start
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return text, []
        functions.append(value)
        at = len(text) - len(text[at:].lstrip(" \t\r\n,"))
    named = all(isinstance(function, dict) and "name" in function for function in functions)
    return (text[:start].strip(), functions) if named else (text, [])

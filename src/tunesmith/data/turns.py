"""Conversations: turns of any common spelling made into role and content, as chat templates want them."""

from __future__ import annotations

import json
from typing import Any, Final

from .rows import BadRowError, Row, kind_of

ROLES: Final = ("system", "user", "assistant", "tool")

# ShareGPT and its descendants; "observation" and "function_call" as LLaMA-Factory writes them.
_ALIASES: Final = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
}
_FUNCTION_CALL: Final = "function_call"
_OPTIONAL: Final = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking", "reasoning")


def is_chat(value: Any) -> bool:
    """Whether `value` is a non-empty list of turns with role and content, or from and value."""
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict):
        return False
    if "role" in turn:
        return "content" in turn or "tool_calls" in turn
    return "from" in turn and "value" in turn


def is_exchanges(value: Any) -> bool:
    """Whether `value` is a non-empty list of XTuner's turns, each an input with its output."""
    return isinstance(value, list) and bool(value) and all(map(_is_exchange, value))


def _is_exchange(turn: Any) -> bool:
    return isinstance(turn, dict) and {"input", "output"} <= turn.keys() <= {"system", "input", "output"}


def answers(messages: list[Row]) -> int:
    """Number of assistant turns."""
    return sum(message["role"] == "assistant" for message in messages)


def read_messages(value: Any, field: str) -> list[Row]:
    """The messages of a conversation under the keys role and content, plus those that tools and reasoning need.

    Raises:
        BadRowError: D005 null, D006 no messages, D007 unknown role, D012 an empty answer, D013 wrong type,
            D016 an answer that is not to be trained.
    """
    if value is None:
        raise BadRowError("D005", field)
    if not isinstance(value, list):
        raise BadRowError("D013", field, kind_of(value))
    if not value:
        raise BadRowError("D006", "messages")
    messages: list[Row] = []
    for turn in value:
        if not isinstance(turn, dict):
            raise BadRowError("D005" if turn is None else "D013", f"{field}[]", kind_of(turn))
        if _is_exchange(turn):
            messages += _exchange(turn, field)
        else:
            messages.append(_message(turn, field))
    return messages


def _exchange(turn: Row, field: str) -> list[Row]:
    """The messages of an XTuner turn: the system message where there is one, the question and its answer."""
    spoken = [("system", turn.get("system")), ("user", turn["input"])]
    messages = [{"role": role, "content": content} for role, content in spoken if content]
    return [_message(message, field) for message in (*messages, {"role": "assistant", "content": turn["output"]})]


def _message(turn: Row, field: str) -> Row:
    named = "role" in turn
    role = _role(turn.get("role" if named else "from"))
    content = turn.get("content" if named else "value")
    message: Row = {key: turn[key] for key in _OPTIONAL if turn.get(key) is not None}
    if role == _FUNCTION_CALL:
        role, content, message["tool_calls"] = "assistant", "", _calls(content, field)
    if role not in ROLES:
        raise BadRowError("D007", "role", role)
    if role == "assistant" and turn.get("weight") == 0:
        raise BadRowError("D016", "weight")
    if content is None and message.get("tool_calls"):
        content = ""
    text = read_text(content, f"{field}[].content")
    if role == "assistant" and not text.strip() and not message.get("tool_calls"):
        raise BadRowError("D012", "answer")
    return {"role": role, "content": text, **message}


def _role(value: Any) -> str:
    if not isinstance(value, str):
        return "none" if value is None else str(value)
    lowered = value.strip().lower()
    return _ALIASES.get(lowered, lowered)


def _calls(content: Any, field: str) -> list[Row]:
    """The tool calls of a ShareGPT function_call turn, whose value is JSON text: a call or a list of calls."""
    try:
        calls = json.loads(content) if isinstance(content, str) else content
        calls = calls if isinstance(calls, list) else [calls]
        return [{"type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls]
    except (ValueError, KeyError, TypeError):
        raise BadRowError("D013", f"{field}[] function_call", "something other than a JSON call") from None


def read_text(value: Any, field: str) -> str:
    """A text, also when it is given as a list of text parts.

    Raises:
        BadRowError: D005 null, D013 anything else.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise BadRowError("D005", field)
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        other = [str(part.get("type")) for part in value if not isinstance(part.get("text"), str)]
        if other:
            raise BadRowError("D013", field, f"parts of type {other[0]}")
        return "".join(part["text"] for part in value)
    raise BadRowError("D013", field, kind_of(value))

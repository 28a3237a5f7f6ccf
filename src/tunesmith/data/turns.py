"""Conversations: turns of any common spelling made into role and content, as chat templates want them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable
from typing import Any, Final

from .rows import BadRowError, Row, kind_of
from .transcripts import is_transcript, read_transcript

ROLES: Final = ("system", "user", "assistant", "tool")

# ShareGPT and its descendants; "observation" and "function_call" as LLaMA-Factory writes them.
ALIASES: Final = {
    "human": "user",
    "prompter": "user",
    "customer": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "agent": "assistant",
    "developer": "system",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
FUNCTION_CALLS: Final = ("function_call", "tool_call")
ROLE_KEYS: Final = ("role", "from", "speaker", "author", "sender")
CONTENT_KEYS: Final = ("content", "value", "text", "message", "utterance", "parts")
EXCHANGE_KEYS: Final = (("input", "output"), ("human", "assistant"), ("user", "assistant"), ("question", "answer"))
OPTIONAL_KEYS: Final = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking", "reasoning")


_TEXT_PARTS: Final = (None, "text", "input_text", "output_text")
_THOUGHTS: Final = ("reasoning", "thinking")


def is_chat(value: Any) -> bool:
    """Whether `value` is a non-empty list of turns with role and content, or from and value."""
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def _is_turn(turn: Any) -> bool:
    if not isinstance(turn, dict):
        return False
    if "role" in turn:
        return "content" in turn or "tool_calls" in turn
    return "from" in turn and "value" in turn


def exchange_keys(keys: Iterable[str]) -> tuple[str, str] | None:
    """The keys of question and answer in a turn that holds both, and nothing else but a system message."""
    found = set(keys) - {"system"}
    return next((pair for pair in EXCHANGE_KEYS if found == set(pair)), None)


def answers(messages: list[Row]) -> int:
    """Number of assistant turns."""
    return sum(message["role"] == "assistant" for message in messages)


def read_messages(value: Any, field: str) -> list[Row]:
    """The messages of a conversation under the keys role and content, plus those that tools and reasoning need.

    A conversation is a list of turns, a single turn, or a transcript ("USER: ... ASSISTANT: ...").

    Raises:
        BadRowError: D005 null, D006 no messages, D007 unknown role, D012 an empty answer, D013 wrong type,
            D016 an answer that is not to be trained.
    """
    if value is None:
        raise BadRowError("D005", field)
    if isinstance(value, str) and is_transcript(value):
        value = read_transcript(value)
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise BadRowError("D013", field, kind_of(value))
    if not value:
        raise BadRowError("D006", "messages")
    messages: list[Row] = []
    for turn in value:
        if isinstance(turn, list) and len(turn) == 2:
            messages += _exchange(turn[0], turn[1], field)
        elif not isinstance(turn, dict):
            raise BadRowError("D005" if turn is None else "D013", f"{field}[]", kind_of(turn))
        elif keys := exchange_keys(turn.keys()):
            messages += _exchange(turn[keys[0]], turn[keys[1]], field, turn.get("system"))
        else:
            messages.append(_message(turn, field))
    return messages


def _exchange(asked: Any, answered: Any, field: str, system: Any = None) -> list[Row]:
    """The messages of a question with its answer, after the system message where there is one."""
    spoken = [("system", system), ("user", asked)]
    messages = [{"role": role, "content": content} for role, content in spoken if content]
    return [_message(message, field) for message in (*messages, {"role": "assistant", "content": answered})]


def key_of(turn: Collection[str], keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that a turn has."""
    return next((key for key in keys if key in turn), None)


def _message(turn: Row, field: str) -> Row:
    role = role_of(turn.get(key_of(turn, ROLE_KEYS) or ""))
    content = turn.get(key_of(turn, CONTENT_KEYS) or "")
    message: Row = {key: turn[key] for key in OPTIONAL_KEYS if turn.get(key) is not None}
    if role in FUNCTION_CALLS:
        role, content, message["tool_calls"] = "assistant", "", _calls(content, field)
    elif turn.get("function_call"):
        message["tool_calls"] = _calls(turn["function_call"], field)
    if role not in ROLES:
        raise BadRowError("D007", "role", role)
    if role == "assistant" and turn.get("weight") == 0:
        raise BadRowError("D016", "weight")
    if content is None and message.get("tool_calls"):
        content = ""
    if role == "assistant":
        thought, content = _thoughts(content)
        if thought and message.keys() & {"reasoning_content", *_THOUGHTS}:
            raise BadRowError("D013", f"{field}[].content", "reasoning twice")
        message |= {"reasoning_content": thought} if thought else {}
    text = read_text(content, f"{field}[].content")
    if role == "assistant" and not text.strip() and not message.get("tool_calls"):
        raise BadRowError("D012", "answer")
    return {"role": role, "content": text, **message}


def _thoughts(content: Any) -> tuple[str, Any]:
    """The reasoning in the parts that a content begins with, and the content without them."""
    parts = content if isinstance(content, list) else []
    begun = list(itertools.takewhile(lambda text: text is not None, map(_thought, parts)))
    return "".join(text for text in begun if text), parts[len(begun) :] or "" if begun else content


def _thought(part: Any) -> str | None:
    """The reasoning that a part holds; None for another part."""
    if not isinstance(part, dict) or not (part.get("type") in _THOUGHTS or part.get("thought") is True):
        return None
    return next((part[key] for key in ("text", *_THOUGHTS) if isinstance(part.get(key), str)), None)


def role_of(value: Any) -> str:
    """The role as chat templates know it, for any usual spelling; one that isn't known stays as it is."""
    if not isinstance(value, str):
        return "none" if value is None else str(value)
    lowered = value.strip().lower()
    return ALIASES.get(lowered, lowered)


def _calls(content: Any, field: str) -> list[Row]:
    """The tool calls of a ShareGPT function_call turn, whose value is JSON text: a call or a list of calls."""
    try:
        calls = _from_json(content, field) if isinstance(content, str) else content
        calls = calls if isinstance(calls, list) else [calls]
        return [{"type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls]
    except (ValueError, KeyError, TypeError):
        raise BadRowError("D013", f"{field}[] function_call", "something other than a JSON call") from None


def _from_json(text: str, field: str) -> Any:
    """The value of JSON text inside a row.

    Raises:
        ValueError: it is none.
        BadRowError: D043, it escapes half a surrogate pair.
    """
    value = json.loads(text)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRowError("D043", field, "half a surrogate pair") from None
    return value


def read_text(value: Any, field: str) -> str:
    """A text, also when it is given as a list of text parts.

    Raises:
        BadRowError: D005 null, D013 anything else.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise BadRowError("D005", field)
    if isinstance(value, list) and value and all(isinstance(part, (dict, str)) for part in value):
        return "".join(part if isinstance(part, str) else _text_of(part, field) for part in value)
    raise BadRowError("D013", field, kind_of(value))


def _text_of(part: Row, field: str) -> str:
    text, kind = part.get("text", part.get("value")), "thought" if part.get("thought") is True else part.get("type")
    if kind not in _TEXT_PARTS or not isinstance(text, str):
        raise BadRowError("D013", field, f"parts of type {kind}")
    return text


def read_tools(value: Any, field: str) -> list[Any]:
    """The tools of a row, given as JSON text, a list or a single one, each as chat templates want it.

    Raises:
        BadRowError: D013, text that isn't JSON.
    """
    try:
        listed = _from_json(value, field) if isinstance(value, str) and value.strip() else value
    except ValueError:
        raise BadRowError("D013", field, "text that isn't JSON") from None
    tools = listed if isinstance(listed, list) else [listed] if listed else []
    return [_tool(tool) for tool in tools]


def _tool(tool: Any) -> Any:
    bare = (
        isinstance(tool, dict) and "name" in tool and "function" not in tool and tool.get("type") in (None, "function")
    )
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}} if bare else tool

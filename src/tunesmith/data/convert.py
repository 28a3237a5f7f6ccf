"""Turning one raw row of a known layout into a layout of TRL's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .formats import Detection
from .rows import BadRowError, Row
from .turns import read_messages, read_text


def reader(detection: Detection, *, conversational: bool) -> Callable[[Row], Row]:
    """The function that turns one raw row into {"text"}, {"prompt", "completion"} or {"messages"}.

    It raises BadRowError for a row that can't be trained on. `conversational` makes messages of prompts and completions
    that are texts; they become so anyway where some rows hold messages, or where a system message goes with them.
    """
    columns = detection.columns
    if detection.layout == "text":
        return lambda row: {"text": _needed(row.get(columns["text"]), columns["text"])}
    if detection.layout == "messages":
        return lambda row: _with_tools(_from_messages(row, columns), row, columns)
    if detection.layout == "alpaca":
        return lambda row: _with_tools(_from_alpaca(row, columns), row, columns)
    lists = any("list" in detection.profiles[columns[role]].kinds for role in ("prompt", "completion"))
    chat = conversational or lists or "system" in columns
    return lambda row: _with_tools(_from_pair(row, columns, chat), row, columns)


def _needed(value: Any, field: str) -> str:
    text = read_text(value, field)
    if not text.strip():
        raise BadRowError("D012", field)
    return text


def _from_messages(row: Row, columns: dict[str, str]) -> Row:
    field = columns["messages"]
    return _conversation(_with_system(read_messages(row.get(field), field), row, columns))


def _from_alpaca(row: Row, columns: dict[str, str]) -> Row:
    instruction = read_text(row.get(columns["instruction"]), "instruction")
    extra = read_text(row.get(columns.get("input", "")) or "", "input")
    question = "\n\n".join(part for part in (instruction, extra) if part.strip())
    messages: list[Row] = []
    for pair in row.get(columns.get("history", "")) or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRowError("D013", "history", "something other than [question, answer]")
        messages += _exchange(read_text(pair[0], "history"), _needed(pair[1], "history"))
    messages += _exchange(question, _needed(row.get(columns["output"]), "output"))
    # The earlier answers of a history are context: Alpaca trains the output.
    messages = _with_system(messages, row, columns)
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def _exchange(question: str, answer: str) -> list[Row]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _from_pair(row: Row, columns: dict[str, str], chat: bool) -> Row:
    asked, answered = columns["prompt"], columns["completion"]
    prompt, completion = row.get(asked), row.get(answered)
    if not chat:
        return {"prompt": read_text(prompt, asked), "completion": _needed(completion, answered)}
    if not isinstance(prompt, list):
        prompt = [{"role": "user", "content": read_text(prompt, asked)}]
    if not isinstance(completion, list):
        completion = [{"role": "assistant", "content": _needed(completion, answered)}]
    before = _with_system(read_messages(prompt, asked), row, columns)
    after = read_messages(completion, answered)
    strangers = sorted({message["role"] for message in after} - {"assistant", "tool"})
    if strangers:
        raise BadRowError("D007", "role", f"{strangers[0]} inside the completion")
    if after[-1]["role"] != "assistant":
        raise BadRowError("D008", "end")
    return {"prompt": before, "completion": after}


def _with_system(messages: list[Row], row: Row, columns: dict[str, str]) -> list[Row]:
    system = row.get(columns.get("system", ""))
    if not system or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": read_text(system, columns["system"])}, *messages]


def _conversation(messages: list[Row]) -> Row:
    if messages[-1]["role"] != "assistant":
        raise BadRowError("D008", "end")
    if len(messages) == 1:
        raise BadRowError("D006", "message before the answer")
    return {"messages": messages}


def _with_tools(converted: Row, row: Row, columns: dict[str, str]) -> Row:
    """Add the tools as JSON text: as lists, Arrow would give every tool the keys of all the others."""
    tools = row.get(columns.get("tools", ""))
    if not tools:
        return converted
    try:
        listed = json.loads(tools) if isinstance(tools, str) else tools
    except ValueError:
        raise BadRowError("D013", columns["tools"], "text that isn't JSON") from None
    return {**converted, "tools": json.dumps(listed, ensure_ascii=False)} if listed else converted

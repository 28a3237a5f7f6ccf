"""Turning one raw row of a known layout into the layout of TRL's that a method trains on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ..records import Verdict
from .formats import Detection
from .formats.case import is_made_of_messages
from .formats.names import mark
from .formats.recommended import recommend
from .formats.sight import Sight
from .formats.verdicts import judge
from .images import with_images
from .paths import value_of
from .rows import BadRowError, Row, kind_of
from .shape import as_text
from .transcripts import is_transcript, split_functions
from .turns import read_messages, read_text, read_tools

Columns = dict[str, str]


def reader(detection: Detection, *, conversational: bool, method: str = "sft") -> Callable[[Row], Row]:
    """The function that turns one raw row into a row in TRL's layout for `method`.

    sft: {"messages"}, {"prompt", "completion"} or {"text"}; clm: {"text"}; dpo and reward: {"prompt", "chosen",
    "rejected"}; kto: {"prompt", "completion", "label"}, or pairs, which TRL takes apart; grpo and rloo: {"prompt"} with
    {"reference"} where there is one. With "tools" as JSON text where the data has them.

    It raises BadRowError for a row that can't be trained on. `conversational` makes messages of prompts and answers
    that are texts; they become so anyway where some rows hold messages, or where a system message goes with them.
    Where a model is shown the rows' images, by sft, they get {"images"}, their paths.
    """
    read = _READERS[method]
    usable = {part.sight.key: part.sight for part in detection.parts[:1]}
    usable |= {sight.key: sight for sight in other_layouts(detection, method)}
    parts = [part for part in detection.parts if part.sight.key in usable]
    chat = conversational or any(is_made_of_messages(part, detection.facts) for part in parts)

    def read_row(row: Row) -> Row:
        sight = detection.sight_of(row)
        if sight.key not in usable:
            raise BadRowError("D018", sight.layout, sight.layout)
        shown = _get(row, sight.columns, "images")
        if shown and (detection.images is None or method != "sft"):
            raise BadRowError("D013", sight.columns["images"], "images")
        made = read(row, sight.columns, chat)
        if shown and detection.images is not None:
            return with_images(made, shown, sight.columns["images"], detection.images)
        return made

    return read_row


def other_layouts(detection: Detection, method: str) -> list[Sight]:
    """Layouts besides that of most rows which `method` can train on together with it."""
    text = method == "sft" and "text" in detection.columns
    others = [part for part in detection.parts[1:] if judge(method, part, detection.facts).status == "READY"]
    return [part.sight for part in others if method != "sft" or text == ("text" in part.sight.columns)]


def confirmed(detection: Detection, rows: Sequence[Row]) -> Detection:
    """`detection` without READY for a method that refuses every single one of `rows`, and without recommending it."""
    verdicts = [_confirmed(verdict, detection, rows) for verdict in detection.verdicts]
    method, why = recommend(detection.sight, verdicts)
    return replace(detection, verdicts=verdicts, recommended=method, recommended_reason=why)


def _confirmed(verdict: Verdict, detection: Detection, rows: Sequence[Row]) -> Verdict:
    if verdict.status != "READY":
        return verdict
    read, codes = reader(detection, conversational=True, method=verdict.method), set()
    for row in rows:
        try:
            read(row)
        except BadRowError as problem:
            codes.add(problem.code)
        else:
            return verdict
    if not codes:
        return verdict
    reason = f"No row can be trained on ({', '.join(sorted(codes))})."
    return Verdict(method=verdict.method, status="INCOMPATIBLE", reason=reason)


def _get(row: Row, columns: Columns, role: str) -> Any:
    return value_of(row, columns[role]) if role in columns else None


def _needed(value: Any, field: str) -> str:
    text = read_text(value, field)
    if not text.strip():
        raise BadRowError("D012", field)
    return text


def _text(row: Row, columns: Columns, _chat: bool) -> Row:
    return {"text": _needed(_get(row, columns, "text"), columns["text"])}


def _sft(row: Row, columns: Columns, chat: bool) -> Row:
    if "text" in columns:
        return _text(row, columns, chat)
    if "messages" in columns:
        return _with_tools(_conversation(_talk(row, columns)), row, columns)
    prompt, completion = _pair(row, columns, chat)
    return _with_tools({"prompt": prompt, "completion": completion}, row, columns)


def _pair(row: Row, columns: Columns, chat: bool) -> tuple[Any, Any]:
    """Prompt and completion, as texts or as messages."""
    if "messages" in columns:
        messages = _conversation(_talk(row, columns))["messages"]
        return messages[:-1], messages[-1:]
    role = "output" if "output" in columns else "completion"
    asked, answer = _prompt(row, columns, chat), _get(row, columns, role)
    if not chat:
        return asked, _needed(answer, columns[role])
    return asked, _answer(answer, columns[role])


def _prompt(row: Row, columns: Columns, chat: bool) -> Any:
    if "messages" in columns:
        return _talk(row, columns)
    if "instruction" in columns:
        return _with_system(_instruction(row, columns), row, columns)
    value, field = _get(row, columns, "prompt"), columns["prompt"]
    if not chat:
        return read_text(value, field)
    if not isinstance(value, (list, dict)):
        value = [{"role": "user", "content": read_text(value, field)}]
    return _with_system(read_messages(value, field), row, columns)


def _instruction(row: Row, columns: Columns) -> list[Row]:
    """Alpaca's question: the instruction with its input, after the history, which is context and not trained."""
    instruction = read_text(_get(row, columns, "instruction"), columns["instruction"])
    extra = read_text(_get(row, columns, "input") or "", "input")
    parts = (instruction, extra) if "input" in columns else (instruction,)
    question = "\n\n".join(part for part in parts if part.strip()) if len(parts) > 1 else instruction
    history = _get(row, columns, "history") or []
    for turn in history:
        if not (isinstance(turn, dict) or (isinstance(turn, list) and len(turn) == 2)):
            raise BadRowError("D013", "history", "something other than [question, answer]")
    earlier = read_messages(history, "history") if history else []
    return [*earlier, {"role": "user", "content": question}]


def _answer(value: Any, field: str) -> list[Row]:
    """An answer as messages: the assistant's, with tools between."""
    if not isinstance(value, (list, dict)):
        return [{"role": "assistant", "content": _needed(value, field)}]
    return _only_answers(read_messages(value, field))


def _only_answers(messages: list[Row]) -> list[Row]:
    strangers = sorted({message["role"] for message in messages} - {"assistant", "tool"})
    if strangers:
        raise BadRowError("D007", "role", f"{strangers[0]} inside the completion")
    if messages[-1]["role"] != "assistant":
        raise BadRowError("D008", "end")
    return messages


def _talk(row: Row, columns: Columns) -> list[Row]:
    field = columns["messages"]
    return _with_system(read_messages(_get(row, columns, "messages"), field), row, columns)


def _with_system(messages: list[Row], row: Row, columns: Columns) -> list[Row]:
    system = _get(row, columns, "system")
    if not system or messages[0]["role"] == "system":
        return messages
    text = read_text(system, columns["system"])
    if _is_written_out(row, columns):
        text = split_functions(text)[0]
    return [{"role": "system", "content": text}, *messages]


def _is_written_out(row: Row, columns: Columns) -> bool:
    talk = _get(row, columns, "messages")
    return isinstance(talk, str) and is_transcript(talk)


def _conversation(messages: list[Row]) -> Row:
    if messages[-1]["role"] != "assistant":
        raise BadRowError("D008", "end")
    if len(messages) == 1:
        raise BadRowError("D006", "message before the answer")
    return {"messages": messages}


def _with_tools(converted: Row, row: Row, columns: Columns) -> Row:
    """Add the tools as JSON text: as lists, Arrow would give every tool the keys of all the others."""
    tools = _get(row, columns, "tools")
    if not tools and _is_written_out(row, columns):
        tools = split_functions(_get(row, columns, "system") or "")[1]
    listed = read_tools(tools, columns.get("tools", "system"))
    return {**converted, "tools": json.dumps(listed, ensure_ascii=False)} if listed else converted


def _preference(row: Row, columns: Columns, chat: bool) -> Row:
    pair = _pair_of_answers(row, columns, chat)
    if _said(pair["chosen"]) == _said(pair["rejected"]):
        raise BadRowError("D034", "rejected")
    return pair


def _said(answer: str | list[Row]) -> Any:
    """An answer without what makes no difference: blanks around it."""
    if isinstance(answer, str):
        return answer.strip()
    return [{**turn, "content": turn["content"].strip()} for turn in answer]


def _pair_of_answers(row: Row, columns: Columns, chat: bool) -> Row:
    chosen, rejected = _get(row, columns, "chosen"), _get(row, columns, "rejected")
    if not chat:
        better, worse = _needed(chosen, columns["chosen"]), _needed(rejected, columns["rejected"])
        if "prompt" in columns:
            return {"prompt": _prompt(row, columns, chat), "chosen": better, "rejected": worse}
        return _split_texts(better, worse)
    answers = [_full(value, columns[role]) for value, role in ((chosen, "chosen"), (rejected, "rejected"))]
    if answers[0][0]["role"] != "assistant":
        prompt, *answers = _split_messages(*answers)
        prompt = _with_system(prompt, row, columns)
    elif columns.keys() & {"prompt", "instruction"}:
        prompt = _prompt(row, columns, chat)
    else:
        raise BadRowError("D006", "prompt")
    better_messages, worse_messages = map(_only_answers, answers)
    return _with_tools({"prompt": prompt, "chosen": better_messages, "rejected": worse_messages}, row, columns)


def _full(value: Any, field: str) -> list[Row]:
    """An answer as messages, maybe with the prompt before it."""
    if isinstance(value, (list, dict)) or (isinstance(value, str) and is_transcript(value)):
        return read_messages(value, field)
    return [{"role": "assistant", "content": _needed(value, field)}]


def _split_messages(chosen: list[Row], rejected: list[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """The turns that both conversations begin with, and what follows in each; one turn at least."""
    most = min(len(chosen), len(rejected)) - 1
    shared = next((index for index in range(most) if chosen[index] != rejected[index]), most)
    if not shared:
        raise BadRowError("D006", "prompt")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _split_texts(chosen: str, rejected: str) -> Row:
    """The text that both begin with as the prompt, cut before a space as TRL does, and what follows in each."""
    most = min(len(chosen), len(rejected))
    shared = next((index for index in range(most) if chosen[index] != rejected[index]), most)
    if shared and chosen[shared - 1] == " ":
        shared -= 1
    if not chosen[:shared].strip():
        raise BadRowError("D006", "prompt")
    better, worse = _needed(chosen[shared:], "chosen"), _needed(rejected[shared:], "rejected")
    return {"prompt": chosen[:shared], "chosen": better, "rejected": worse}


def _kto(row: Row, columns: Columns, chat: bool) -> Row:
    if "chosen" in columns:
        return _preference(row, columns, chat)
    prompt, completion = _pair(row, columns, chat)
    label = _mark(_get(row, columns, "label"), columns["label"])
    return _with_tools({"prompt": prompt, "completion": completion, "label": label}, row, columns)


def _mark(value: Any, field: str) -> bool:
    if value is None:
        raise BadRowError("D005", field)
    good = mark(as_text(value))
    if good is None:
        raise BadRowError("D013", field, f"{kind_of(value)} that is neither good nor bad")
    return good


def _rewarded(row: Row, columns: Columns, chat: bool) -> Row:
    if "chosen" in columns:
        pair = _preference(row, columns, chat)
        return _with_tools({"prompt": pair["prompt"]}, row, columns)
    if "label" in columns:
        return _with_tools({"prompt": _pair(row, columns, chat)[0]}, row, columns)
    if "reference" in columns or not columns.keys() & {"completion", "output", "messages"}:
        converted = {"prompt": _prompt(row, columns, chat)}
        if "reference" in columns:
            converted["reference"] = _reference(_get(row, columns, "reference"), columns["reference"])
        return _with_tools(converted, row, columns)
    prompt, completion = _pair(row, columns, chat)
    answer = completion if isinstance(completion, str) else completion[-1]["content"]
    return _with_tools({"prompt": prompt, "reference": answer}, row, columns)


def _reference(value: Any, field: str) -> Any:
    """A reference as text, whatever it is in the file; several right answers stay a list."""
    if value is None:
        raise BadRowError("D005", field)
    return [as_text(item) for item in value] if isinstance(value, list) else as_text(value)


_READERS: Final[dict[str, Callable[[Row, Columns, bool], Row]]] = {
    "sft": _sft,
    "clm": _text,
    "dpo": _preference,
    "reward": _preference,
    "kto": _kto,
    "grpo": _rewarded,
    "rloo": _rewarded,
}

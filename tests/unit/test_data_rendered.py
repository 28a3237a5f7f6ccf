"""What a template makes of conversations: T011, T013 and T014 to T018, on a renderer of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tunesmith.data import rendered
from tunesmith.data.conversations import Conversation, conversations
from tunesmith.data.rendered import rendered_findings

Row = dict[str, Any]


class Template:
    """Renders each message by a function; ends each with a full stop."""

    template: str | None = "any"

    def __init__(self, write: Callable[[Row], str] | None = None, end: str = "<end>") -> None:
        self.write = write or (lambda message: f"{message['content']}{message.get('reasoning_content', '')}")
        self.end = end
        self.rendered: list[tuple[bool, Any]] = []

    def render(self, messages: list[Row], *, prompt: bool = False, tools: Any = None, marked: bool = False) -> str:
        self.rendered.append((marked, tools))
        return "".join(f"[{message['role']}]{self.write(message)}{self.end}" for message in messages)

    def stop_tokens(self) -> list[str]:
        return ["<end>", "<stop>"]

    def left_out(self, rows: Sequence[Row]) -> dict[str, int]:
        return {}

    def with_special_tokens(self, rows: Sequence[Row]) -> tuple[int, list[str]]:
        return 0, []


def said(role: str, content: str, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def row(answer: str, *before: Row, **more: Any) -> Row:
    return {"prompt": [*before, said("user", "?")], "completion": [said("assistant", answer, **more)]}


def found(rows: list[Row], write: Callable[[Row], str] | None = None, end: str = "<end>") -> list[tuple[str, str, str]]:
    return [(each.code, each.severity, each.what) for each in rendered_findings(rows, Template(write, end), "x")]


def without_thoughts(message: Row) -> str:
    return str(message["content"]).rpartition("</think>")[2]


THOUGHT = "<think>\nhm\n</think>\n\nyes"


def test_good_rows_have_no_findings() -> None:
    rows = [row("yes", said("system", "be brief")), row(THOUGHT), row("    indented"), row("a", reasoning_content="hm")]
    assert found(rows) == []
    assert found([{"messages": [said("user", "a"), said("assistant", THOUGHT)]}]) == []
    assert found([{"text": "x"}]) == []
    assert rendered_findings([], Template(), "x") == []


def test_conversations_of_a_row() -> None:
    ask, yes, no = said("user", "?"), said("assistant", "yes"), said("assistant", "no")
    assert conversations({"messages": [ask, yes], "tools": "[]"}) == [Conversation([], [ask, yes], "[]", marked=True)]
    assert conversations({"prompt": [ask], "completion": [yes]}) == [Conversation([ask], [yes])]
    assert conversations({"prompt": [ask], "completion": [yes], "label": True}) == [Conversation([ask], [yes])]
    pair = conversations({"prompt": [ask], "chosen": [yes], "rejected": [no]})
    assert pair == [Conversation([ask], [yes]), Conversation([ask], [no])]
    assert conversations({"prompt": [ask]}) == [Conversation([ask], [])]


def test_a_conversation_is_rendered_once_with_its_tools_and_marks() -> None:
    template = Template()
    for given, expected in (('[{"name": "look"}]', [{"name": "look"}]), ([{"a": 1}], [{"a": 1}]), (None, None)):
        conversation = Conversation([said("user", "?")], [said("assistant", "yes")], given, marked=True)
        assert conversation.text(template) == conversation.text(template) == "[user]?<end>[assistant]yes<end>"
        assert template.rendered == [(True, expected)]
        template.rendered.clear()


def test_t014_the_system_message_is_left_out() -> None:
    rows = [row("yes", said("system", " be brief\n")), row("yes"), row("yes", said("system", " "))]
    assert found(rows, lambda message: "" if message["role"] == "system" else str(message["content"])) == [
        (
            "T014",
            "warning",
            "In 1 of 1 conversation with a system message looked at, the chat template doesn't render it.",
        )
    ]


def test_t015_reasoning_is_left_out_of_trained_answers() -> None:
    expected = "In {} of {} conversation with reasoning looked at, the model's chat template "
    expected += "leaves it out of trained answers."
    rows = [row(THOUGHT), row("yes")]
    assert found(rows, without_thoughts) == [("T015", "error", expected.format(1, 1))]
    assert found([row("hm</think>yes")], without_thoughts) == [("T015", "error", expected.format(1, 1))]
    talk = [said("user", "a"), said("assistant", THOUGHT), said("user", "b"), said("assistant", "<think>oh</think>no")]
    first_only = [{"messages": talk}]
    assert found(first_only, lambda m: without_thoughts(m) if m is talk[1] else m["content"]) == [
        ("T015", "error", expected.format(1, 1))
    ]


def test_t015_reasoning_in_keys_that_only_some_answers_keep() -> None:
    talk = [said("assistant", "a", reasoning_content="hm"), said("assistant", "b", reasoning_content="oh")]
    rows = [{"messages": [said("user", "?"), *talk]}]
    kept = [lambda m: m["content"] + m.get("reasoning_content", ""), lambda m: m["content"]]
    assert found(rows, kept[0]) == []
    assert found(rows, kept[1]) == []  # T011 says it
    ((code, severity, _),) = found(rows, lambda m: kept[m is talk[0]](m))
    assert (code, severity) == ("T015", "error")


def test_t015_an_empty_block_before_the_reasoning() -> None:
    ((code, severity, what),) = found([row(THOUGHT)], lambda m: f"<think>\n\n</think>\n\n{m['content']}")
    assert (code, severity) == ("T015", "warning")
    assert what.endswith("puts an empty block before it.")
    assert found([row("yes")], lambda m: f"<think>\n\n</think>\n\n{m['content']}") == []


def test_t015_reasoning_of_earlier_turns_is_a_note() -> None:
    for earlier in (said("assistant", THOUGHT), said("assistant", "yes", reasoning_content="hm")):
        rows = [row("no", said("user", "a"), earlier)]
        ((code, severity, what),) = found(rows, without_thoughts)
        assert (code, severity) == ("T015", "note")
        assert what.endswith("leaves it out of earlier turns, which are context.")
        assert found(rows) == []


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ({"tools": '[{"properties": {"a": null, "b": {}}}]'}, "a"),
        ({"tools": [{"properties": {"a": None}}]}, "a"),
        ({"calls": [{"function": {"name": "f", "arguments": {"x": 1, "y": None, "a": [{"z": None}]}}}]}, "y, z"),
        ({"calls": [{"function": {"arguments": dict.fromkeys("abcde")}}]}, "a, b, c, d, e"),
        ({"calls": [{"function": {"arguments": dict.fromkeys("abcdefg")}}]}, "a, b, c, d, e and 2 more"),
    ],
)
def test_t016_null_inside_tools_and_calls(more: Row, keys: str) -> None:
    before = said("assistant", "", tool_calls=more.pop("calls", [{"function": {"name": "f", "arguments": {}}}]))
    rows = [{**row("yes", said("user", "a"), before), **more}, row("no")]
    (only,) = [each for each in found(rows) if each[0] == "T016"]
    assert only[1:] == ("warning", f"1 row has keys with null inside its tools or tool calls ({keys}).")


def test_t016_no_null_no_finding() -> None:
    call = {"function": {"name": "f", "arguments": {"x": 0, "y": "", "z": [], "n": False}}}
    rows = [{**row("yes", said("assistant", "", tool_calls=[call])), "tools": '[{"properties": {}}]'}]
    assert found(rows) == []


def test_t017_the_turn_end_is_no_stop_token() -> None:
    assert found([row("yes")], end="<fin>\n") == [
        (
            "T017",
            "error",
            "The model's chat template ends the assistant's turn with <fin>, and generation stops at <end>, <stop>.",
        )
    ]
    assert "with nothing," in found([row("yes")], end=" \n")[0][2]
    assert found([row("yes")], end="<fin><stop>\n") == []
    assert found([{"messages": row("yes")["prompt"] + row("yes")["completion"]}], end="<stop>") == []


def test_t017_says_nothing_of_templates_that_need_more_or_render_nothing() -> None:
    def needs_a_system_message(message: Row) -> str:
        if message["content"] == "hello":
            raise ValueError("no system message")
        return str(message["content"])

    assert found([row("yes")], needs_a_system_message, end="<fin>") == []
    assert "T017" not in [code for code, *_ in found([row("yes")], lambda _: "", end="<fin>")]


@pytest.mark.parametrize(
    ("answer", "write", "change"),
    [
        ("    return x", str.strip, "takes the first line's indentation away"),
        ("\n\treturn x", str.strip, "takes the first line's indentation away"),
        ("Yes, Maria", str.lower, "doesn't render the text as it was written"),
        ("  Yes, Maria", lambda text: text.strip().lower(), "doesn't render the text as it was written"),
        (THOUGHT.replace("yes", "Yes"), str.lower, "doesn't render the text as it was written"),
        (" yes", str.strip, None),
        ("yes\n\n", str.strip, None),
        ("\n  \nyes", str.strip, None),
        ("    return x \n    # done", str.rstrip, None),
        (" ", str.strip, None),
    ],
)
def test_t018_the_text_of_answers(answer: str, write: Callable[[str], str], change: str | None) -> None:
    rows = [row(answer), {"prompt": [said("user", "A")], "completion": [said("assistant", "no")]}]
    expected = f"In 1 of {2 if answer.strip() else 1} answers looked at, the model's chat template {change}."
    assert found(rows, lambda m: write(m["content"])) == ([("T018", "warning", expected)] if change else [])


def test_at_most_so_many_rows_are_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "LOOKED_AT", 10)
    rows = [row("yes", said("system", f"be brief {n}")) for n in range(95)]
    (only,) = found(rows, lambda m: "" if m["role"] == "system" else str(m["content"]))
    assert only[2].startswith("In 10 of 10 conversations")

"""What becomes of conversations in the model's template and tokenizer, beyond their lengths; without torch."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from ..records import Finding, Severity
from ..rules import finding
from .conversations import Conversation, conversations
from .prepare import is_conversational
from .rows import Row

LOOKED_AT = 1000
"""Rows that are rendered for one check: what a template does hardly depends on the row."""

_NAMED = 5


class Renderer(Protocol):
    """Knows the chat template and the special tokens of a model; models.light.LightTokenizer is one."""

    template: str | None

    def render(
        self, messages: list[dict[str, Any]], *, prompt: bool = False, tools: Any = None, marked: bool = False
    ) -> str:
        """The text of a conversation; `marked`: by the template that marks the assistant's turns."""
        ...

    def left_out(self, rows: Sequence[Row]) -> dict[str, int]:
        """Number of rows with a part that the template ignores, for each such part."""
        ...

    def with_special_tokens(self, rows: Sequence[Row]) -> tuple[int, list[str]]:
        """Number of rows with special tokens in their text, and these tokens."""
        ...

    def stop_tokens(self) -> list[str]:
        """The tokens at which generation stops."""
        ...


def rendered_findings(rows: Sequence[Row], light: Renderer, where: str) -> list[Finding]:
    """T011 and T013 to T018 for prepared rows that the template renders; none for rows that aren't made of messages.

    Raises:
        jinja2.TemplateError: the template refuses a row.
    """
    if any("images" in row for row in rows):
        return []  # these look at texts; parts of type image are none
    if light.template is None or not rows or not is_conversational(rows[0]):
        return []
    found = [
        turn_end_finding(light, marked="messages" in rows[0]),
        system_finding(rows, light, where),
        *reasoning_findings(rows, light, where),
        text_finding(rows, light, where),
        null_finding(rows, where),
    ]
    return [
        *left_out_findings(light.left_out(rows), len(rows), where),
        *special_token_findings(*light.with_special_tokens(rows), len(rows), where),
        *(finding for finding in found if finding),
    ]


def left_out_findings(counts: dict[str, int], total: int, where: str) -> list[Finding]:
    """T011 for each part of rows (tools, tool_calls and the like) that the template leaves out of `counts` rows."""
    return [finding("T011", where, count=f"{count:,}", total=f"{total:,}", what=what) for what, count in counts.items()]


def special_token_findings(count: int, tokens: Sequence[str], total: int, where: str) -> list[Finding]:
    """T013, when there are rows with special tokens in their text."""
    if not count:
        return []
    return [finding("T013", where, count=f"{count:,}", total=f"{total:,}", tokens=", ".join(tokens))]


def turn_end_finding(light: Renderer, *, marked: bool = False) -> Finding | None:
    """T017, when the template ends an answer without a token at which generation stops; `marked` as in `render`."""
    probe = "PROBE"
    stops = light.stop_tokens()
    try:
        asked, answered = {"role": "user", "content": "hello"}, {"role": "assistant", "content": probe}
        text = light.render([asked, answered], marked=marked)
    except Exception:  # Jinja hands on whatever the template's expressions raise; T008 says it of rows
        return None
    _, written, end = text.rpartition(probe)
    if not written or not stops or any(stop in end for stop in stops):
        return None
    return finding("T017", "chat template", end=end.strip() or "nothing", stops=", ".join(stops))


def system_finding(rows: Sequence[Row], light: Renderer, where: str) -> Finding | None:
    """T014, when the system message isn't in the rendered text."""
    looked_at = _some(rows, lambda conversation: bool(conversation.system))
    missing = sum(not _holds(light, conversation, conversation.system) for conversation in looked_at)
    if not missing:
        return None
    return finding("T014", where, count=f"{missing:,}", total=f"{len(looked_at):,}")


def reasoning_findings(rows: Sequence[Row], light: Renderer, where: str) -> list[Finding]:
    """T015, by what the template does: an error or a warning for trained answers, a note for earlier turns.

    Reasoning in a key of its own that no answer of the row keeps is T011.
    """
    looked_at = _some(rows, lambda conversation: conversation.has_reasoning)
    cases: list[tuple[Severity, str, list[bool]]] = [
        ("error", "leaves it out of trained answers", [_loses_trained(light, each) for each in looked_at]),
        ("warning", "puts an empty block before it", [_doubles(light, each) for each in looked_at]),
        (
            "note",
            "leaves it out of earlier turns, which are context",
            [not _holds(light, each, *each.reasoning_before) for each in looked_at],
        ),
    ]
    total = f"{len(looked_at):,}"
    return [
        finding("T015", where, severity=severity, count=f"{sum(changed):,}", total=total, change=change)
        for severity, change, changed in cases
        if any(changed)
    ]


def _loses_trained(light: Renderer, conversation: Conversation) -> bool:
    inside, keyed = conversation.reasoning_inside, conversation.reasoning_keyed
    kept = [_holds(light, conversation, text) for text in keyed]
    return not _holds(light, conversation, *inside) or (any(kept) and not all(kept))


def _doubles(light: Renderer, conversation: Conversation) -> bool:
    """Whether an empty reasoning block stands right before a reasoning that the author wrote."""
    return any(
        f"</think>{blank}<think>" in conversation.text(light) and bool(conversation.reasoning_inside)
        for blank in ("", "\n", "\n\n")
    )


def text_finding(rows: Sequence[Row], light: Renderer, where: str) -> Finding | None:
    """T018, when answers aren't rendered as they were written; blanks count only where they indent."""
    looked_at = _some(rows, lambda conversation: bool(conversation.answers))
    total = sum(len(conversation.answers) for conversation in looked_at)
    changes = Counter[str]()
    for conversation in looked_at:
        for answer in conversation.answers:
            if not _holds(light, conversation, answer.strip()):
                changes["doesn't render the text as it was written"] += 1
            elif not _holds(light, conversation, _indented(answer)):
                changes["takes the first line's indentation away"] += 1
    if not changes:
        return None
    change, _ = changes.most_common(1)[0]
    return finding("T018", where, count=f"{changes.total():,}", total=f"{total:,}", change=change)


def _indented(answer: str) -> str:
    """The first line with its indentation of two blanks or more; without, from its first word on."""
    text = answer.lstrip()
    indentation = answer[: len(answer) - len(text)].rpartition("\n")[2]
    matters = len(indentation) > 1 or "\t" in indentation
    return (indentation if matters else "") + text.partition("\n")[0].rstrip()


def null_finding(rows: Sequence[Row], where: str) -> Finding | None:
    """T016, when tools or tool calls hold null, as those do that went through Arrow."""
    found = [set[str]().union(*map(_null_keys, conversations(row))) for row in rows]
    count = sum(map(bool, found))
    if not count:
        return None
    keys = sorted(set().union(*found))
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return finding("T016", where, count=f"{count:,}", keys=", ".join(keys[:_NAMED]) + more)


def _null_keys(conversation: Conversation) -> Iterator[str]:
    tools = conversation.tools
    yield from _nulls_of_text(tools) if isinstance(tools, str) else _nulls(tools)
    for message in (*conversation.context, *conversation.said):
        yield from _nulls(message.get("tool_calls"))


@functools.lru_cache(maxsize=1024)  # rows share their tools
def _nulls_of_text(tools: str) -> frozenset[str]:
    return frozenset(_nulls(json.loads(tools)))


def _nulls(value: Any) -> Iterator[str]:
    """The keys under which null stands, at any depth."""
    if isinstance(value, dict):
        for name, item in value.items():
            if item is None:
                yield name
            else:
                yield from _nulls(item)
    elif isinstance(value, list):
        for item in value:
            yield from _nulls(item)


def _holds(light: Renderer, conversation: Conversation, *texts: str) -> bool:
    """Whether all `texts` stand in the rendered conversation."""
    return all(text in conversation.text(light) for text in texts)


def _some(rows: Sequence[Row], has: Callable[[Conversation], bool]) -> list[Conversation]:
    """The conversations that `has` a feature, of at most LOOKED_AT rows, evenly spread."""
    having = [row for row in rows if any(map(has, conversations(row)))]
    spread = having[:: max(1, -(-len(having) // LOOKED_AT))]
    return [conversation for row in spread for conversation in conversations(row) if has(conversation)]

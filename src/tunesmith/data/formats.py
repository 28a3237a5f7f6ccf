"""Which layout rows have, and whether supervised fine-tuning can train on them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import UsageError
from ..recipe.schema import Mapping
from ..records import Finding, Layout, Verdict
from ..rules import finding
from .columns import Profile, profile
from .rows import Row
from .turns import is_chat

_CHATS: Final = ("messages", "conversations", "conversation", "dialog")
_PROMPTS: Final = ("prompt", "question", "query", "instruction", "input", "problem")
_COMPLETIONS: Final = ("completion", "response", "answer", "output", "solution")
_SYSTEMS: Final = ("system", "system_prompt")
_PREFERENCES: Final = (
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),
    ("response_chosen", "response_rejected"),
)
_DESIRABLE: Final = ("label", "kto_tag")
_BOOLEAN: Final = {"true", "false", "1", "0", "none"}
_CLASSES: Final = ("label", "labels")
_REFERENCES: Final = ("reward_model", "ground_truth", "solution", "answer")


@dataclass(frozen=True)
class Detection:
    """What the rows are.

    Attributes:
        layout: Their layout; "unknown" unless supervised fine-tuning can train on them.
        columns: The column of each role: messages, prompt, completion, text, instruction, input, output, system,
            history, tools; only the roles that some column plays.
        verdict: Whether sft can train on them.
        profiles: All columns.
    """

    layout: Layout
    columns: dict[str, str]
    verdict: Verdict
    profiles: dict[str, Profile]

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts for all methods that this version trains."""
        return [self.verdict]


def detect(rows: Sequence[Row], mapping: Mapping) -> Detection:
    """Find the layout from the columns of all rows; what `mapping` names goes before what they look like.

    Raises:
        UsageError: `mapping` names a column that isn't there, or roles that exclude each other.
    """
    profiles = profile(rows)
    mapped = {role: column for role, column in mapping.model_dump().items() if column is not None}
    _check(mapped, profiles)
    layout, columns, verdict = _Sight(profiles, rows, mapped).judge()
    return Detection(layout, columns, verdict, profiles)


def unusable(detection: Detection, where: str) -> Finding | None:
    """D004 when sft can't train on the rows as they are, with the mapping that would do where there is one."""
    verdict = detection.verdict
    if verdict.status == "READY":
        return None
    roles = verdict.mapping or {"prompt": "COLUMN", "completion": "COLUMN"}
    mapping = ", ".join(f"{role}: {column}" for role, column in roles.items())
    return finding("D004", where, reason=verdict.reason, columns=", ".join(detection.profiles), mapping=mapping)


def _check(mapped: dict[str, str], profiles: dict[str, Profile]) -> None:
    for role, column in mapped.items():
        if column not in profiles:
            near = difflib.get_close_matches(column, profiles, n=1, cutoff=0.5)
            raise UsageError(
                f"data.mapping.{role} names the column {column!r}, which isn't there.",
                why=f"The columns are {', '.join(profiles)}.",
                fix=f"Did you mean {near[0]!r}?" if near else "Name one of these columns.",
            )
    families = [family for family in (("messages",), ("prompt", "completion"), ("text",)) if set(family) & set(mapped)]
    if len(families) > 1:
        raise UsageError(
            f"data.mapping names {' and '.join(mapped)}.",
            why="Rows are trained on as messages, or as prompt and completion, or as text; never as two of them.",
            fix="Keep one of them in the mapping.",
        )


@dataclass
class _Sight:
    """The columns seen as roles."""

    profiles: dict[str, Profile]
    rows: Sequence[Row]
    mapped: dict[str, str]

    def judge(self) -> tuple[Layout, dict[str, str], Verdict]:
        if self.mapped.keys() & {"messages", "text", "prompt", "completion"}:
            return self._as_mapped()
        refusal = self._other_method()
        if refusal:
            return _no(refusal)
        return self._chat() or self._columns() or self._synonyms() or self._text() or _no(self._why_unknown())

    def _as_mapped(self) -> tuple[Layout, dict[str, str], Verdict]:
        said = "as `data.mapping` says"
        if "messages" in self.mapped:
            return self._ready("messages", {"messages": self.mapped["messages"]}, f"messages, {said}")
        if "text" in self.mapped:
            return self._ready("text", {"text": self.mapped["text"]}, f"text, {said}")
        prompt = self.mapped.get("prompt") or self._named("prompt")
        completion = self.mapped.get("completion") or self._named("completion")
        if prompt and completion:
            columns = {"prompt": prompt, "completion": completion}
            return self._ready("prompt-completion", columns, f"prompt and completion, {said}")
        lacking = "completion" if prompt else "prompt"
        return _no(f"The mapping names no column for {lacking}.")

    def _other_method(self) -> str | None:
        for chosen, rejected in _PREFERENCES:
            if chosen in self.profiles and rejected in self.profiles:
                return (
                    f"Preference pairs ({chosen}, {rejected}): made for dpo or reward. "
                    f"Supervised fine-tuning needs one answer to each prompt."
                )
        answered = any(self._named(name) for name in (*_CHATS, *_COMPLETIONS)) or self._chats()
        for name in _DESIRABLE:
            if answered and self._is_boolean(name):
                return (
                    f"Answers marked good or bad by the column {name}: made for kto. "
                    f"Supervised fine-tuning would learn the bad answers as well."
                )
        if {"completions", "labels"} <= self.profiles.keys():
            return "Lists of steps with labels (completions, labels): made for process reward models."
        return None

    def _chat(self) -> tuple[Layout, dict[str, str], Verdict] | None:
        chats = self._chats()
        if {"prompt", "completion"} <= self.profiles.keys() or not chats:
            return None
        name: str | None = next((known for known in _CHATS if known in chats), None)
        if name is None and "prompt" in chats:
            return self._chat_in_prompt()
        if name is None and len(chats) > 1:
            return _needs(f"Several columns hold conversations: {', '.join(chats)}.", None)
        name = name or next(iter(chats))
        keys = chats[name][0].keys()
        spelling = "" if "role" in keys else f" ({', '.join(keys)}), converted to role and content"
        return self._ready("messages", {"messages": name}, f"conversations in the column {name}{spelling}")

    def _chat_in_prompt(self) -> tuple[Layout, dict[str, str], Verdict]:
        last = [row["prompt"][-1] for row in self.rows if is_chat(row.get("prompt"))]
        answered = sum(turn.get("role", turn.get("from")) in ("assistant", "gpt") for turn in last)
        if 2 * answered > len(last):
            return _needs("The column prompt holds whole conversations.", {"messages": "prompt"})
        return _no(self._prompt_only("prompt"))

    def _columns(self) -> tuple[Layout, dict[str, str], Verdict] | None:
        if {"instruction", "output"} <= self.profiles.keys():
            roles: tuple[str, ...] = ("instruction", "input", "output", "history")
            columns = {role: role for role in roles if role in self.profiles}
            reason = f"Alpaca ({', '.join(columns)}), converted to a user's and an assistant's message"
            return self._ready("alpaca", columns, reason)
        if {"prompt", "completion"} <= self.profiles.keys():
            columns = {"prompt": "prompt", "completion": "completion"}
            return self._ready("prompt-completion", columns, "prompt and completion")
        return None

    def _text(self) -> tuple[Layout, dict[str, str], Verdict] | None:
        if "text" not in self.profiles:
            return None
        classes = next((name for name in _CLASSES if name in self.profiles), None)
        if classes:
            return _no(
                f"Texts with classes (text, {classes}): the text alone would be trained, never its class. Turn the "
                f"class into words and map both (prompt: text), or map `text: text` when the text alone is meant."
            )
        return self._ready("text", {"text": "text"}, "text, all of it trained")

    def _synonyms(self) -> tuple[Layout, dict[str, str], Verdict] | None:
        prompts, completions = self._alike(_PROMPTS), self._alike(_COMPLETIONS)
        if not prompts or not completions:
            return None
        if len(prompts) > 1 or len(completions) > 1:
            return _needs(
                f"More than one column could be the prompt ({', '.join(prompts)}) or the completion "
                f"({', '.join(completions)}); choose one each.",
                None,
            )
        mapping = {"prompt": prompts[0], "completion": completions[0]}
        systems = self._alike(_SYSTEMS)
        if len(systems) == 1:
            mapping["system"] = systems[0]
        unused = [name for name in self.profiles if name not in mapping.values()]
        rest = f" Not trained on: {', '.join(unused)}." if unused else ""
        return _needs(f"{prompts[0]} looks like the prompt and {completions[0]} like the completion.{rest}", mapping)

    def _why_unknown(self) -> str:
        for name in _CHATS:
            if self._kind(name) == "text":
                return f"The column {name} is text, not a list of messages; give JSON or JSONL with real lists."
        prompts = self._alike(_PROMPTS)
        if prompts and any(self._kind(name) in ("list", "number") for name in ("choices", "options", "gold")):
            return f"Multiple choice ({', '.join(self.profiles)}): no column holds the answer as text."
        if prompts:
            return self._prompt_only(prompts[0])
        return "No column looks like messages, prompt and completion, instruction and output, or text."

    def _prompt_only(self, prompt: str) -> str:
        reference = next((name for name in _REFERENCES if name in self.profiles), None)
        against = f", rewarded against {reference}" if reference else ""
        return f"Prompts without answers (column {prompt}): made for grpo or rloo{against}."

    def _ready(self, layout: Layout, columns: dict[str, str], reason: str) -> tuple[Layout, dict[str, str], Verdict]:
        if layout == "text" and "system" in self.mapped:
            raise UsageError(
                "data.mapping.system can't be used: the rows are plain text.",
                why="A system message belongs to a conversation, or to a prompt with a completion.",
                fix="Take `system` out of the mapping, or map prompt and completion.",
            )
        system = self.mapped.get("system") or ("system" if self._kind("system") == "text" else None)
        if system and layout != "text":
            columns = {**columns, "system": system}
        if "tools" in self.profiles and layout != "text":
            columns = {**columns, "tools": "tools"}
        return layout, columns, Verdict(method="sft", status="READY", reason=f"{reason[0].upper()}{reason[1:]}.")

    def _named(self, name: str) -> str | None:
        return name if name in self.profiles else None

    def _kind(self, name: str) -> str | None:
        return self.profiles[name].type if name in self.profiles else None

    def _is_boolean(self, name: str) -> bool:
        """Whether a column holds true and false only, also written as text (CSV) or as 1 and 0."""
        return name in self.profiles and {str(row.get(name)).lower() for row in self.rows} <= _BOOLEAN

    def _chats(self) -> dict[str, list[Row]]:
        """The columns that hold conversations, each with the first of them."""
        return {name: column.chat for name, column in self.profiles.items() if column.chat is not None}

    def _alike(self, synonyms: Sequence[str]) -> list[str]:
        """Columns of text whose name, in any case, is one of `synonyms`."""
        return [
            name
            for name, column in self.profiles.items()
            if name.strip().lower() in synonyms and "text" in column.kinds
        ]


def _no(reason: str) -> tuple[Layout, dict[str, str], Verdict]:
    return "unknown", {}, Verdict(method="sft", status="INCOMPATIBLE", reason=reason)


def _needs(reason: str, mapping: dict[str, str] | None) -> tuple[Layout, dict[str, str], Verdict]:
    return "unknown", {}, Verdict(method="sft", status="NEEDS MAPPING", reason=reason, mapping=mapping)

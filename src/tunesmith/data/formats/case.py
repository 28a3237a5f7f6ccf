"""Rows of one layout before one method: what a verdict is made of."""

from __future__ import annotations

import re
from typing import Final

from ...records import Verdict, Wanted
from ..paths import Path, heads_of, parse
from ..shape import Shape
from .detection import Part
from .facts import Facts
from .names import LABELS, NEEDS
from .sight import Sight
from .unfit import obstacle, ranked

_IDS: Final = re.compile(r"(.*[_.])?(u?u?id|url|uri|link|hash|md5|sha\d*|date|time|timestamp)|.*Id", re.IGNORECASE)
_SHOWN: Final = 5
_OWN: Final = ("tools", "images")
"""Roles that rows' own columns play whatever the mapping says."""
_WHAT: Final = {
    "messages": "conversations",
    "sharegpt": "conversations (from, value)",
    "alpaca": "instructions with outputs",
    "prompt-completion": "prompts with completions",
    "question-answer": "questions with answers",
    "text": "running text",
    "preference": "preference pairs",
    "unpaired-preference": "answers marked good or bad",
    "prompt-only": "prompts without answers to learn",
    "stepwise": "lists of steps with labels, made for process reward models",
}


class Case:
    """Rows of one layout before one method."""

    def __init__(self, method: str, part: Part, facts: Facts) -> None:
        self.method, self.part, self.facts = method, part, facts
        self.sight: Sight = part.sight
        self.columns, self.layout = part.sight.columns, part.sight.layout

    def no(self, reason: str) -> Verdict:
        """INCOMPATIBLE."""
        return Verdict(method=self.method, status="INCOMPATIBLE", reason=reason)

    def needs(self, reason: str, mapping: dict[str, str], kept: dict[str, Wanted] | None = None) -> Verdict:
        """NEEDS MAPPING, with this one, and a filter where only some rows are to be trained on."""
        return Verdict(method=self.method, status="NEEDS MAPPING", reason=reason, mapping=mapping, filter=kept)

    def ready(self, reason: str, mapping: dict[str, str]) -> Verdict:
        """READY where the names of the columns leave no doubt; else the mapping has to say them."""
        if self.sight.usual:
            columns = [column for role, column in self.columns.items() if role not in ("answer", "class")]
            said = f"{reason}{self._marked()}{self._unused(columns)}"
            return Verdict(method=self.method, status="READY", reason=said)
        choices = "".join(
            f" More than one column could be the {role}: {', '.join(names)}; this mapping takes the first."
            for role, names in self.sight.choices.items()
        )
        unused = self._unused([*mapping.values(), *(self.columns[role] for role in _OWN if role in self.columns)])
        said = ", ".join(f"{column!r} as the {role}" for role, column in mapping.items())
        return self.needs(f"{reason} The names leave a doubt; this mapping reads {said}.{choices}{unused}", mapping)

    def _marked(self) -> str:
        """The sentence for sft on answers that a column marks, where nothing leaves the bad ones out."""
        if self.method != "sft" or self.layout == "text":
            return ""
        marks = next((name for name in LABELS if name in self.facts.keys and self.facts.label_values(name)), None)
        return (
            f" The column {marks} marks answers as good or bad: without a filter, bad ones are learnt." if marks else ""
        )

    def _unused(self, columns: list[str]) -> str:
        """The sentence that names the columns with texts which none of `columns` reads, but for ids and the like."""
        used = {head for column in columns for head in heads_of(column)}
        texts = {
            key
            for group in self.part.groups
            for key, inner in group.shape.keys
            if inner.kind == "text" or (inner.items is not None and inner.items.kind in ("text", "object"))
        }
        rest = sorted(key for key in texts - used if not _IDS.fullmatch(key))
        more = f" and {len(rest) - _SHOWN} more" if len(rest) > _SHOWN else ""
        return f" Not trained on: {', '.join(rest[:_SHOWN])}{more}." if rest else ""

    def mapping(self, *roles: str) -> dict[str, str]:
        """The mapping of those of `roles` that some column plays."""
        found = {role: self.columns[role] for role in roles if role in self.columns}
        if "prompt" in roles and "instruction" in self.columns:
            extra = "\n\n{input?}" if "input" in self.columns else ""
            found = {"prompt": f"{{instruction}}{extra}" if extra else "instruction", **found}
        if "completion" in roles and "output" in self.columns:
            found["completion"] = self.columns["output"]
        return found

    @property
    def asks(self) -> bool:
        """Whether some column holds the prompts."""
        return bool(self.columns.keys() & {"prompt", "instruction"})

    def kind(self, role: str) -> str | None:
        """The kind of values of a role in the most frequent shape; None where it leads nowhere."""
        shape = value_shape(self.columns[role], self.part.groups[0].shape) if role in self.columns else None
        return shape.kind if shape else None

    def kinds(self, role: str) -> set[str]:
        """The kinds of values of a role in all rows, nulls left out."""
        shapes = [value_shape(self.columns[role], group.shape) for group in self.part.groups]
        return {shape.kind for shape in shapes if shape} - {"null"}

    @property
    def what(self) -> str:
        """What the rows are, in words; empty where nothing is known."""
        return _WHAT.get(self.layout, "")


def value_shape(column: str, row: Shape) -> Shape | None:
    """The shape of what `column`, a path or a template, leads to in rows of shape `row`."""
    parsed = parse(column)
    return parsed.shape(row) if not hasattr(parsed, "parts") else Shape("text")


def is_made_of_messages(part: Part, facts: Facts) -> bool:
    """Whether rows hold messages, so that texts beside them must become messages, too."""
    columns = part.sight.columns
    if columns.keys() & {"messages", "instruction", "system"}:
        return True
    if part.sight.layout == "preference" and "prompt" not in columns and facts.is_transcript(columns["chosen"]):
        return True
    answers = [columns[role] for role in ("prompt", "completion", "chosen", "rejected") if role in columns]
    shapes = (value_shape(column, group.shape) for group in part.groups for column in answers)
    return any(shape.kind in ("list", "object") for shape in shapes if shape is not None)


def unshown(answer: str) -> str:
    """What to say where the answer is one of a list of choices, which the prompt doesn't show."""
    path = parse(answer)
    if not isinstance(path, Path) or not isinstance(path.steps[-1], Path):
        return ""
    return (
        f" The mapping can't show the choices ({path.steps[0]}), as rows may have more or fewer of them: where the "
        f"prompts don't name them, write them in first."
    )


def why_unknown(case: Case) -> str:
    """Why a method that has no use for the layout has none, as a sentence."""
    if case.layout != "unknown":
        return f"These rows are {case.what}."
    shape = case.part.groups[0].shape if case.part.groups else Shape("object")
    if blocked := obstacle(shape, case.facts) or ranked(shape):
        return blocked
    chats = [
        key
        for key, inner in shape.keys
        if key in ("messages", "conversations", "conversation") and inner.kind == "text"
    ]
    if chats:
        return f"The column {chats[0]} is text, not a list of messages; give JSON or JSONL with real lists."
    like = f"looks like {NEEDS[case.method][0]}" if case.method in ("sft", "clm") else "looks like one"
    return f"No column {like}; where one is, name it in a mapping."


def lowered(sentence: str) -> str:
    """A sentence as it stands behind a semicolon."""
    return sentence[:1].lower() + sentence[1:]

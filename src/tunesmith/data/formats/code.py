"""Python that turns a file into a dataset of TRL's layout, to be run as it is printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from ...records import Verdict
from ..paths import parse, quoted
from ..shape import Shape
from ..turns import CONTENT_KEYS, OPTIONAL_KEYS, ROLES, key_of, role_of
from .detection import Detection, Part
from .facts import Facts, is_mark, role_key
from .load import NotPlainError, load
from .mapped import mapped_sight
from .sight import OPTIONAL, Sight
from .verdicts import is_made_of_messages, value_shape


def with_code(detection: Detection, mapped: dict[str, str], source: str) -> Detection:
    """`detection` with code in each verdict that isn't INCOMPATIBLE."""
    verdicts = [
        verdict
        if verdict.status == "INCOMPATIBLE"
        else verdict.model_copy(update={"code": _code(detection, verdict, mapped, source)})
        for verdict in detection.verdicts
    ]
    return replace(detection, verdicts=verdicts)


def _code(detection: Detection, verdict: Verdict, mapped: dict[str, str], source: str) -> str:
    mapping = verdict.mapping or mapped
    try:
        return _plain(detection, verdict, mapping, source)
    except NotPlainError:
        arguments = [quoted(source), quoted(verdict.method)]
        arguments += [f"mapping={quoted(mapping)}"] if mapping else []
        arguments += [f"filter={quoted(verdict.filter)}"] if verdict.filter else []
        rows = f"training_rows({', '.join(arguments)})"
        if _has_several_references(detection, verdict, mapping):
            return (
                "from datasets import Dataset\n\nfrom tunesmith.data.prepare import training_rows\n\n"
                f"rows = Dataset.from_list({rows})\n"
            )
        return (
            "from tunesmith.data.prepare import training_rows\n"
            f"from tunesmith.data.trl_preparation import as_dataset\n\nrows = as_dataset({rows})\n"
        )


def _has_several_references(detection: Detection, verdict: Verdict, mapping: dict[str, str]) -> bool:
    """Whether rows get a list of right answers, which is no conversation."""
    sight = mapped_sight(mapping, detection.sight, detection.facts) if mapping else detection.sight
    reference = sight.columns.get("reference")
    if reference is None or verdict.method not in ("grpo", "rloo"):
        return False
    shapes = (value_shape(reference, group.shape) for group in detection.facts.structure.groups)
    return any(shape.kind == "list" for shape in shapes if shape is not None)


def _plain(detection: Detection, verdict: Verdict, mapping: dict[str, str], source: str) -> str:
    """Code that needs nothing but datasets.

    Raises:
        NotPlainError: such code would be long, or not exact.
    """
    if len(detection.parts) != 1 or detection.features.keys() & {"images", "tools", "tool_calls", "history"}:
        raise NotPlainError
    facts, part = detection.facts, detection.parts[0]
    sight = mapped_sight(mapping, detection.sight, facts) if mapping else detection.sight
    if "tools" in sight.columns:
        raise NotPlainError
    writer = _Writer(sight, Part(sight, part.groups), facts)
    body = _BODIES[verdict.method](writer)
    needed, loaded = load(source, detection)
    # Where the file has a column of this name, its type outlasts `map`.
    cast = '.cast_column("label", Value("bool"))' if "label" in body else ""
    needed = "Value, load_dataset" if cast and "Value" not in needed else needed
    fields = "".join(f'        "{name}": {expression},\n' for name, expression in body.items())
    filters = "".join(
        f"rows = rows.filter(lambda row: row[{quoted(column)}] == {quoted(value)})\n"
        for column, value in (verdict.filter or {}).items()
    )
    return (
        f"from datasets import {needed}\n\nrows = {loaded}\n{filters}{writer.helpers()}\n\n"
        f"def convert(row):\n    return {{\n{fields}    }}\n\n\n"
        f"rows = rows.map(convert, remove_columns=rows.column_names){cast}\n"
    )


@dataclass
class _Writer:
    """Writes the expressions for the roles of one layout."""

    sight: Sight
    part: Part
    facts: Facts

    def __post_init__(self) -> None:
        self.roles: dict[str, str] = {}
        self.keys: tuple[str, str] | None = None
        self.chat = is_made_of_messages(self.part, self.facts)

    @property
    def columns(self) -> dict[str, str]:
        return self.sight.columns

    def shape(self, role: str) -> Shape:
        """The one shape of a role's values in all rows; of lists, one that has the keys of all turns."""
        shapes = [value_shape(self.columns[role], group.shape) for group in self.part.groups]
        kinds = {shape.kind if shape else "null" for shape in shapes}
        if len(kinds) != 1 and not (role in OPTIONAL and kinds == {"text", "null"}):
            raise NotPlainError
        return next(shape for shape in shapes if shape is not None and shape.kind != "null")

    def helpers(self) -> str:
        """The function that spells messages as TRL does, where some are needed."""
        if self.keys is None:
            return ""
        role, content = self.keys
        named = f'ROLES.get(turn["{role}"], turn["{role}"])' if self.roles else f'turn["{role}"]'
        table = f"\nROLES = {quoted(self.roles)}\n" if self.roles else ""
        spelled = f'[{{"role": {named}, "content": turn["{content}"]}} for turn in turns]'
        return f"{table}\n\ndef messages(turns):\n    return {spelled}\n"

    def value(self, role: str) -> str:
        return parse(self.columns[role]).code(self.part.groups[0].shape)

    def text(self, role: str) -> str:
        """A role that is text, as text."""
        if self.shape(role).kind != "text":
            raise NotPlainError
        return self.value(role)

    def talk(self, role: str) -> str:
        """A role that is a conversation or a single message, as messages."""
        shape = self.shape(role)
        turn = shape.items if shape.kind == "list" else shape
        path = self.columns[role]
        key = role_key(Shape("list", items=turn))
        if turn is None or key is None or "{" in path or "[" in path:
            raise NotPlainError
        content = key_of([name for name, _ in turn.keys], CONTENT_KEYS)
        inner = turn.get(content or "")
        keys = {name for name, found in turn.keys if found.kind != "null"}
        if inner is None or inner.kind != "text" or keys & {*OPTIONAL_KEYS, "function_call", "weight"}:
            raise NotPlainError
        if self.keys not in (None, (key, content)):
            raise NotPlainError
        self.keys = key, str(content)
        if shape.kind == "object":
            self._spell(self.facts.structure.values(f"{path}.{key}") or {"": 0})
            return f"messages([{self.value(role)}])"
        self._spell(self.facts.turns(path, key).roles)
        return f"messages({self.value(role)})"

    def _spell(self, roles: dict[str, int]) -> None:
        if any(role_of(name) not in ROLES for name in roles) or ("system" in self.columns and "system" in roles):
            raise NotPlainError
        self.roles |= {name: role_of(name) for name in sorted(roles) if role_of(name) != name}

    def prompt(self) -> str:
        if "instruction" in self.columns:
            return self.system() + self._user(self._question())
        if not self.chat:
            return self.text("prompt")
        asked = self.talk("prompt") if self.shape("prompt").kind != "text" else self._user(self.text("prompt"))
        return self.system() + asked

    def _question(self) -> str:
        if "input" not in self.columns:
            return self.text("instruction")
        parts = f"({self.text('instruction')}, {self.text('input')})"
        return f'"\\n\\n".join(part for part in {parts} if part and part.strip())'

    def _user(self, text: str) -> str:
        return f'[{{"role": "user", "content": {text}}}]'

    def system(self) -> str:
        if "system" not in self.columns:
            return ""
        text = self.text("system")
        return f'([{{"role": "system", "content": {text}}}] if {text} else []) + '

    def answer(self, role: str) -> str:
        if not self.chat:
            return self.text(role)
        if self.shape(role).kind != "text":
            return self.talk(role)
        return f'[{{"role": "assistant", "content": {self.text(role)}}}]'

    def pair(self) -> tuple[str, str]:
        """The expressions of prompt and completion."""
        if "messages" in self.columns:
            talk = self.system() + self.talk("messages")
            return f"({talk})[:-1]", f"({talk})[-1:]"
        return self.prompt(), self.answer("output" if "output" in self.columns else "completion")


def _sft(writer: _Writer) -> dict[str, str]:
    if "text" in writer.columns:
        return _clm(writer)
    if "messages" in writer.columns:
        return {"messages": writer.system() + writer.talk("messages")}
    prompt, completion = writer.pair()
    return {"prompt": prompt, "completion": completion}


def _clm(writer: _Writer) -> dict[str, str]:
    return {"text": writer.text("text")}


def _preference(writer: _Writer) -> dict[str, str]:
    if not writer.columns.keys() & {"prompt", "instruction"}:
        raise NotPlainError
    return {"prompt": writer.prompt(), "chosen": writer.answer("chosen"), "rejected": writer.answer("rejected")}


def _kto(writer: _Writer) -> dict[str, str]:
    if "chosen" in writer.columns:
        return _preference(writer)
    values = writer.facts.label_values(writer.columns["label"])
    if writer.shape("label").kind not in ("boolean", "number") or not all(map(is_mark, values)):
        raise NotPlainError
    prompt, completion = writer.pair()
    return {"prompt": prompt, "completion": completion, "label": f"{writer.value('label')} > 0"}


def _rewarded(writer: _Writer) -> dict[str, str]:
    columns = writer.columns
    if "chosen" in columns:
        return {"prompt": _preference(writer)["prompt"]}
    if "reference" in columns:
        return {"prompt": writer.prompt(), "reference": writer.text("reference")}
    if not columns.keys() & {"completion", "output", "messages"}:
        return {"prompt": writer.prompt()}
    prompt, completion = writer.pair()
    if "label" in columns:
        return {"prompt": prompt}
    return {"prompt": prompt, "reference": f'({completion})[-1]["content"]' if writer.chat else completion}


_BODIES: Final[dict[str, Callable[[_Writer], dict[str, Any]]]] = {
    "sft": _sft,
    "clm": _clm,
    "dpo": _preference,
    "reward": _preference,
    "kto": _kto,
    "grpo": _rewarded,
    "rloo": _rewarded,
}

"""Python expressions for the roles of one layout, and what rows must have to be trained on."""

from __future__ import annotations

from dataclasses import dataclass

from ..paths import Path, parse, quoted
from ..shape import Shape
from ..turns import CONTENT_KEYS, OPTIONAL_KEYS, ROLES, key_of, role_of
from .case import is_made_of_messages, value_shape
from .detection import Part
from .facts import Facts, role_key
from .load import NotPlainError
from .sight import OPTIONAL, Sight


@dataclass
class Writer:
    """Writes the expressions for the roles of one layout, and gathers what rows must have to be trained on.

    Attributes:
        sight: The layout.
        part: The rows that have it.
        facts: What is known of the file.
        roles: Roles as the file spells them, where TRL spells them in another way.
        keys: The keys under which turns have the role and the content; None while no turns are read.
        checks: Expressions that are true of rows to be trained on.
        chat: Whether rows become messages.
    """

    sight: Sight
    part: Part
    facts: Facts

    def __post_init__(self) -> None:
        self.roles: dict[str, str] = {}
        self.keys: tuple[str, str] | None = None
        self.checks: dict[str, None] = {}
        self.chat = is_made_of_messages(self.part, self.facts)

    @property
    def columns(self) -> dict[str, str]:
        """The path of the column that plays each role."""
        return self.sight.columns

    def shape(self, role: str) -> Shape:
        """The one shape of a role's values in all rows; of lists, one that has the keys of all turns."""
        shapes = [value_shape(self.columns[role], group.shape) for group in self.part.groups]
        kinds = {shape.kind if shape else "null" for shape in shapes}
        if len(kinds) != 1 and not (role in OPTIONAL and kinds == {"text", "null"}):
            raise NotPlainError
        return next(shape for shape in shapes if shape is not None and shape.kind != "null")

    def usable(self) -> str:
        """The function that tells the rows which tunesmith keeps."""
        checks = "\n        and ".join(self.checks)
        return f"def is_usable(row):\n    return bool(\n        {checks}\n    )\n" if checks else ""

    def roles_table(self) -> str:
        """The table of roles that are spelled in another way than TRL does, where there are any."""
        return f"\nROLES = {quoted(self.roles)}\n" if self.roles else ""

    def helpers(self) -> list[str]:
        """The functions that look at messages, and spell them as TRL does, where some are needed."""
        if self.keys is None:
            return []
        role, content = map(quoted, self.keys)
        named = f"ROLES.get(turn[{role}], turn[{role}])" if self.roles else f"turn[{role}]"
        return [
            f'def messages(turns):\n    return [{{"role": {named}, "content": turn[{content}]}} for turn in turns]\n',
            "def is_whole(turns):\n"
            f"    if any(turn is None or turn[{content}] is None for turn in turns):\n        return False\n"
            '    return all(turn["role"] != "assistant" or turn["content"].strip() for turn in messages(turns))\n',
        ]

    def value(self, role: str) -> str:
        """The expression for what the column holds.

        Raises:
            NotPlainError: some rows may lack it.
        """
        parsed = parse(self.columns[role])
        parts = [parsed] if isinstance(parsed, Path) else [part for part in parsed.parts if not isinstance(part, str)]
        for part in parts:
            path, optional = part if isinstance(part, tuple) else (part, role in OPTIONAL)
            shapes = [path.shape(group.shape) for group in self.part.groups]
            kinds = {shape.kind if shape else "null" for shape in shapes}
            indexed = not all(isinstance(step, str) for step in path.steps)
            if indexed or len(kinds - {"null"} if optional and len(path.steps) == 1 else kinds) != 1:
                raise NotPlainError
        return parsed.code(self.part.groups[0].shape)

    def text(self, role: str) -> str:
        """A role that is text, as text."""
        if self.shape(role).kind != "text":
            raise NotPlainError
        return self.value(role)

    def given(self, role: str) -> str:
        """A role that is text, and mustn't be null."""
        text = self.text(role)
        self.checks[f"{text} is not None"] = None
        return text

    def said(self, role: str) -> str:
        """A role that is text, and mustn't be blank."""
        text = self.text(role)
        self.checks[f"({text}).strip()" if " " in text else f"{text}.strip()"] = None
        return text

    def talk(self, role: str, *, least: int = 1, answers: bool = False) -> str:
        """A role that is a conversation or a single message, as messages; at `least` so many, the last an answer."""
        shape = self.shape(role)
        turn = shape.items if shape.kind == "list" else shape
        path = self.columns[role]
        key = role_key(Shape("list", items=turn))
        if turn is None or key is None or "{" in path:
            raise NotPlainError
        content = key_of([name for name, _ in turn.keys], CONTENT_KEYS)
        inner = turn.get(content or "")
        keys = {name for name, found in turn.keys if found.kind != "null"}
        if inner is None or inner.kind != "text" or keys & {*OPTIONAL_KEYS, "function_call", "weight"}:
            raise NotPlainError
        if self.keys not in (None, (key, content)):
            raise NotPlainError
        self.keys = key, str(content)
        single = shape.kind == "object"
        spoken = self.facts.structure.values(f"{path}.{key}") if single else self.facts.turns(path, key).roles
        names = self._spell(spoken or {"": 0})
        value = f"[{self.value(role)}]" if single else self.value(role)
        if answers and names - {"assistant"}:
            raise NotPlainError
        if not single:
            self.checks[f"len({value}) > {least - 1}"] = None
        self.checks[f"is_whole({value})"] = None
        return f"messages({value})"

    def _spell(self, roles: dict[str, int]) -> set[str]:
        """Take note of how roles are spelled; gives them as TRL spells them."""
        if any(role_of(name) not in ROLES for name in roles) or ("system" in self.columns and "system" in roles):
            raise NotPlainError
        self.roles |= {name: role_of(name) for name in sorted(roles) if role_of(name) != name}
        return set(map(role_of, roles))

    def conversation(self) -> str:
        """The messages of a conversation that ends with an answer."""
        column = self.columns["messages"]
        talk = self.talk("messages", least=2)
        answered, rows = self.facts.answered(column, self.keys[0]) if self.keys else (0, 0)
        if answered < rows:
            raise NotPlainError
        return self.system() + talk

    def prompt(self) -> str:
        """What asks, as text or as messages."""
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
        """The system message, to be put before other messages; nothing where no column holds one."""
        if "system" not in self.columns:
            return ""
        text = self.text("system")
        return f'([{{"role": "system", "content": {text}}}] if {text} else []) + '

    def answer(self, role: str) -> str:
        """An answer that isn't blank, as text or as messages."""
        if not self.chat:
            return self.said(role)
        if self.shape(role).kind != "text":
            return self.talk(role, answers=True)
        return f'[{{"role": "assistant", "content": {self.said(role)}}}]'

    def pair(self) -> tuple[str, str]:
        """The expressions of prompt and completion."""
        if "messages" in self.columns:
            talk = self.conversation()
            return f"({talk})[:-1]", f"({talk})[-1:]"
        return self.prompt(), self.answer("output" if "output" in self.columns else "completion")

    def preference(self) -> dict[str, str]:
        """The expressions of prompt, chosen and rejected, which must differ."""
        pair = {"prompt": self.prompt(), "chosen": self.answer("chosen"), "rejected": self.answer("rejected")}
        if self.shape("chosen").kind != self.shape("rejected").kind:
            raise NotPlainError
        self.checks[f"{self._stripped('chosen')} != {self._stripped('rejected')}"] = None
        return pair

    def _stripped(self, role: str) -> str:
        """The text of an answer, or the texts of its turns, without blanks around it."""
        kind, value = self.shape(role).kind, self.value(role)
        content = f"[{quoted(self.keys[1])}].strip()" if self.keys else ""
        if kind == "list":
            return f"[turn{content} for turn in {value}]"
        return f"{value}{content}" if kind == "object" else f"{value}.strip()"

"""Which layout rows of one shape have, and which column plays which role."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...records import Layout
from ..paths import LETTERS, known_paths, parse_path
from ..shape import Shape
from .facts import Facts, role_key
from .names import (
    CHATS,
    CHOICE_COLUMNS,
    CHOICES,
    CLASSES,
    COMPLETIONS,
    CONTEXTS,
    FULL_ANSWERS,
    GOLDS,
    IMAGES,
    LABELS,
    LOGGED,
    LONG_TEXTS,
    PREFERENCES,
    PROMPTS,
    PROMPTS_ALONE,
    REFERENCES,
    SUMMARIES,
    SYSTEMS,
    TEXTS,
    TOOLS,
)
from .unfit import obstacle, ranked

_REFERENCE_KINDS = ("text", "number", "list", "boolean", "object")
OPTIONAL = frozenset({"system", "tools", "input", "history", "reference", "answer", "class", "images"})
"""Roles whose column may be null or absent; by the other ones rows of a layout are told from rows of another."""


@dataclass(frozen=True)
class Sight:
    """A layout as rows have it.

    Attributes:
        layout: Its name.
        columns: Role -> path of the column that plays it. Besides the roles of a mapping: instruction, input, output,
            history (alpaca), completions, labels (stepwise), answer (the reference with its way there), tools, class,
            images.
        usual: Whether the names leave no doubt; if not, a mapping has to say which column plays which role.
        choices: Columns that could play a role, where they are several: role -> columns.
    """

    layout: Layout
    columns: dict[str, str] = field(default_factory=dict)
    usual: bool = True
    choices: dict[str, list[str]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        """What rows of this layout have in common, whichever optional columns they have."""
        roles = sorted(role for role in self.columns if role not in OPTIONAL)
        return (self.layout, *(f"{role}={self.columns[role]}" for role in roles))


def see(shape: Shape, facts: Facts) -> Sight:
    """The layout of rows that have `shape`."""
    return _Eye(shape, facts).see()


class _Eye:
    """One shape, looked at."""

    def __init__(self, shape: Shape, facts: Facts) -> None:
        self.shape, self.facts = shape, facts
        paths = list(self._paths())
        self.kinds = {path: inner.kind for path, inner in paths}
        self.chats = {path: inner for path, inner in paths if facts.is_chat(path, inner)}

    def _paths(self) -> Iterator[tuple[str, Shape]]:
        for path in known_paths(self.shape):
            inner = parse_path(path).shape(self.shape)
            if inner is not None and inner.kind != "null":
                yield path, inner

    def see(self) -> Sight:
        found = self._preference()
        if found is None and obstacle(self.shape, self.facts):
            return Sight("unknown")
        found = (
            found
            or self._stepwise()
            or self._unpaired()
            or self._chat()
            or self._alpaca()
            or self._pair()
            or self._text()
            or self._prompt_only()
        )
        return found or Sight("unknown")

    def _alike(self, names: Iterable[str], *kinds: str) -> list[str]:
        """Columns of these kinds whose name, in any case, is one of `names`; in the order of names."""
        named = {path.strip().lower(): path for path, kind in self.kinds.items() if kind in (kinds or ("text",))}
        return [named[name] for name in dict.fromkeys(names) if name in named]

    def _sight(self, layout: Layout, columns: dict[str, str], *, usual: bool, **choices: list[str]) -> Sight:
        """A sight with the columns of system message and tools added; an unusual name needs a mapping anyway."""
        systems = [name for name in self._alike(["system"] if usual else SYSTEMS) if name not in columns.values()]
        nested = columns.get("messages", "").rpartition(".")[0]
        names = [f"{nested}.{name}" for name in TOOLS] if nested else []
        tools = self._alike([*TOOLS, *names], "text", "list", "object")
        columns = {**columns, **_first(system=systems, tools=tools, images=self._images())}
        return Sight(layout, columns, usual, {role: names for role, names in choices.items() if len(names) > 1})

    def _images(self) -> list[str]:
        """Columns with images that belong to the texts; a name in a column is one where a text says where it stands."""
        named = self._alike(IMAGES, *set(self.kinds.values()) - {"number", "boolean"})
        texts = [*self.chats, *self._alike(PROMPTS)]
        shown = any(self.facts.structure.containing(path, "<image>") for path in texts) if named else False
        return [name for name in named if self.kinds[name] != "text" or shown]

    def _chat_column(self, *, but: Iterable[str] = ()) -> list[str]:
        """Columns with conversations; the one under the most usual name alone, where there is one."""
        chats = [path for path in self.chats if path not in but]
        ranked = [path for name in CHATS for path in chats if path.rpartition(".")[2].lower() == name]
        return ranked[:1] or chats

    def _preference(self) -> Sight | None:
        kinds = ("text", "list", "object")
        for names in PREFERENCES:
            pair = [self._alike([name], *kinds) for name in names]
            if all(pair):
                chosen, rejected = pair[0][0], pair[1][0]
                break
        else:
            return None
        columns, usual = {"chosen": chosen, "rejected": rejected}, (chosen, rejected) == ("chosen", "rejected")
        if not self._implicit(chosen):
            prompt, certain = self._prompt_side({chosen, rejected})
            columns, usual = {**prompt, **columns}, usual and certain
        return self._sight("preference", columns, usual=usual)

    def _implicit(self, chosen: str) -> bool:
        """Whether the prompt stands inside the answers: as their first turns, or before them in a transcript."""
        if self.kinds[chosen] == "text":
            return self.facts.is_transcript(chosen)
        key = role_key(self.chats.get(chosen))
        return key is not None and self.facts.begins_asking(chosen, key)

    def _prompt_side(self, taken: set[str]) -> tuple[dict[str, str], bool]:
        """The columns that ask, and whether their names leave no doubt."""
        if self.kinds.get("prompt") == "text" or "prompt" in self.chats:
            return {"prompt": "prompt"}, True
        if "instruction" in self._alike(["instruction"]):
            return {"instruction": "instruction", **self._alpaca_extras()}, True
        chats = self._chat_column(but=taken)
        if chats:
            return {"prompt": chats[0]}, "." not in chats[0]
        prompts = [name for name in self._alike(PROMPTS_ALONE) if name not in taken]
        return ({"prompt": self._with_context(prompts[0])}, False) if prompts else ({}, True)

    def _stepwise(self) -> Sight | None:
        if self.kinds.get("completions") == "list" and self.kinds.get("labels") == "list":
            prompt, _ = self._prompt_side({"completions", "labels"})
            return Sight("stepwise", {**prompt, "completions": "completions", "labels": "labels"})
        return None

    def _unpaired(self) -> Sight | None:
        label = next((name for name in self._alike(LABELS, "boolean", "number", "text") if self._marks(name)), None)
        if label is None:
            return None
        answered = self._chat() or self._alpaca() or self._pair(but=label)
        if answered is None or answered.choices or label in answered.columns.values():
            return None
        return Sight("unpaired-preference", {**answered.columns, "label": label}, answered.usual)

    def _marks(self, name: str) -> bool:
        return bool(self.facts.label_values(name))

    def _chat(self) -> Sight | None:
        if {"prompt", "completion"} <= self.kinds.keys():
            return None
        chats = self._chat_column(but={"prompt"}) or [path for path in self.chats if path == "prompt"]
        if "history" in chats and self._alike(COMPLETIONS):
            return None
        if not chats:
            return self._transcript()
        path = chats[0]
        key = role_key(self.chats[path])
        if key is not None and self._is_open(path, key):
            return None
        layout: Layout = "sharegpt" if key == "from" else "messages"
        return self._sight(layout, {"messages": path}, usual=path != "prompt" and len(chats) == 1, messages=chats)

    def _is_open(self, path: str, key: str) -> bool:
        """Whether the conversations are but prompts: none is answered, or, in a column named prompt, few are."""
        answered, rows = self.facts.answered(path, key)
        return 2 * answered <= rows if path == "prompt" else not answered and rows > 0

    def _transcript(self) -> Sight | None:
        named = [name for name in self._alike((*CHATS, "text")) if self.facts.is_transcript(name)]
        if not named or (named[0].lower() == "text" and not self.kinds.keys() & set(SYSTEMS)):
            return None
        return self._sight("messages", {"messages": named[0]}, usual=True)

    def _alpaca_extras(self) -> dict[str, str]:
        return {name: name for name in ("input", "history") if name in self.kinds}

    def _alpaca(self) -> Sight | None:
        if not {"instruction", "output"} <= self.kinds.keys():
            return None
        output = self._answer_in("output")
        if self.kinds["instruction"] != "text" or output is None:
            return None
        columns = {"instruction": "instruction", **self._alpaca_extras(), "output": output}
        return self._sight("alpaca", columns, usual=output == "output")

    def _answer_in(self, name: str) -> str | None:
        """The column with the answer, or the first of the answers in it; None where it holds anything else."""
        if self._answers(name):
            return name
        return f"{name}[0]" if self._worded(f"{name}[0]") else None

    def _pair(self, but: str | None = None) -> Sight | None:
        if {"prompt", "completion"} <= self.kinds.keys():
            answer = self._answer_in("completion") or "completion"
            columns = {"prompt": "prompt", "completion": answer}
            return self._sight("prompt-completion", columns, usual=answer == "completion")
        kinds = ("text",) if not self.chats else ("text", "list", "object")
        completions = [name for name in self._alike(COMPLETIONS, *kinds) if name != but and self._answers(name)]
        chats = self._chat_column(but=completions)
        if chats or {"prompt", "reference"} <= self.kinds.keys():
            # What stands there under these names is rather compared with than learnt.
            completions = [name for name in completions if name.lower() not in ("answer", "solution", "target")]
        if chats:
            completions += [path for path in LOGGED if self._worded(path)]
        if not completions or self._gold():
            return None
        prompts = [name for name in self._alike(PROMPTS) if name not in completions and name != but]
        prompts = [name for name in prompts if name not in ("context", "article", "input") or len(prompts) == 1]
        if not prompts and completions[0].lower() in SUMMARIES:
            prompts = [name for name in self._alike(LONG_TEXTS) if name != but]
        asked = chats[:1] or prompts
        if not asked:
            return None
        prompt = asked[0] if chats else self._with_context(asked[0])
        layout: Layout = (
            "question-answer"
            if {asked[0].lower(), completions[0].lower()} & {"question", "answer"}
            else ("prompt-completion")
        )
        columns = {"prompt": prompt, "completion": completions[0]}
        return self._sight(layout, columns, usual=False, prompt=asked, completion=completions)

    def _answers(self, name: str) -> bool:
        return self.kinds[name] == "text" or name in self.chats or bool(role_key(Shape("list", items=self._at(name))))

    def _at(self, path: str) -> Shape | None:
        return parse_path(path).shape(self.shape)

    def _with_context(self, prompt: str) -> str:
        """The prompt after the text that it asks about, and before the choices, where columns hold them."""
        context = [f"{{{name}?}}\n\n" for name in self._alike(CONTEXTS) if name != prompt][:1]
        choices = self._choice_columns()
        return "".join([*context, f"{{{prompt}}}", *choices]) if context or choices else prompt

    def _choice_columns(self) -> list[str]:
        """The lines of a template that show choices which stand in a column each."""
        known = {name.lower(): name for name in sorted(self.facts.keys)}
        for written in CHOICE_COLUMNS:
            found = [known.get(written.format(letter).lower()) for letter in LETTERS]
            names = [name for name in found[: found.index(None)] if name] if None in found else []
            if len(names) > 1 and self.kinds.get(names[0]) == "text":
                marks = ["" if name in self.facts.full else "?" for name in names]
                return [f"\n{at}. {{{name}{mark}}}" for at, name, mark in zip(LETTERS, names, marks, strict=False)]
        return []

    def _text(self) -> Sight | None:
        texts = self._alike(TEXTS)
        if not texts or (texts[0] != "text" and self._alike(PROMPTS_ALONE)):
            return None
        classes = [
            name
            for name in self._alike(CLASSES, "text", "number", "boolean")
            if name not in texts and not self.facts.is_dates(name)
        ]
        return Sight("text", {"text": texts[0], **_first(**{"class": classes})}, usual=texts[0] == "text")

    def _prompt_only(self) -> Sight | None:
        prompt, usual = self._prompt_side(set())
        if not prompt or ranked(self.shape):
            return None
        references = self._references()
        first = [f"{path}[0]" for path in references]
        full = [path for path in (*self._gold(), *self._alike(FULL_ANSWERS), *references, *first) if self._worded(path)]
        full = [path for path in full if path not in prompt.values()]
        columns = {**prompt, **_first(reference=references, answer=full)}
        return self._sight("prompt-only", columns, usual=usual)

    def _references(self) -> list[str]:
        chosen = self._gold()
        found = self._alike(REFERENCES, *_REFERENCE_KINDS)
        squad = [f"{path}.text[0]" for path in self._alike(["answers"], "object") if self._worded(f"{path}.text[0]")]
        return [*chosen, *squad, *found]

    def _gold(self) -> list[str]:
        """The path of the right one of several choices, where a column tells which it is."""
        choices = [name for name in self._alike(CHOICES, "list") if self._worded(f"{name}[0]")]
        golds = [
            name
            for name in self._alike(GOLDS, "number", "text")
            if self.kinds[name] == "number" or self.facts.is_letters(name)
        ]
        return [f"{choices[0]}[{golds[0]}]"] if choices and golds else []

    def _worded(self, path: str) -> bool:
        inner = self._at(path)
        return inner is not None and inner.kind == "text"


def _first(**columns: list[str]) -> dict[str, str]:
    """Of each role the first column, where there is one."""
    return {role: names[0] for role, names in columns.items() if names}

"""Whether each method can train on rows of a layout, and with which mapping."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, get_args

from ...recipe.schema import Method
from ...records import Verdict
from ..paths import Path, heads_of, parse
from ..shape import Shape
from .detection import Part
from .facts import Facts
from .names import BAD, GOOD, LABELS
from .sight import Sight
from .unfit import obstacle

METHODS: Final[tuple[str, ...]] = get_args(Method)
_CHATTY: Final = ("messages", "sharegpt")
_PAIRS: Final = ("prompt-completion", "question-answer")
_IDS: Final = re.compile(r"(.*[_.])?(u?u?id|url|uri|link|hash|md5|sha\d*|date|time|timestamp)|.*Id", re.IGNORECASE)
_SHOWN: Final = 5
_OWN: Final = ("tools", "images")
"""Roles that rows' own columns play whatever the mapping says."""
_TALK: Final = "Conversations: what precedes the last answer is the prompt, the last answer the reference."
_WITH_ANSWERS: Final = {
    "messages": _TALK,
    "sharegpt": _TALK,
    "alpaca": "Instructions as prompts, with their outputs as references.",
    "prompt-completion": "Prompts, with their completions as references.",
    "question-answer": "Questions as prompts, with their answers as references.",
}
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


def judge(method: str, part: Part, facts: Facts) -> Verdict:
    """Whether `method` can train on the rows of `part`."""
    return _JUDGES[method](_Case(method, part, facts))


class _Case:
    """Rows of one layout before one method."""

    def __init__(self, method: str, part: Part, facts: Facts) -> None:
        self.method, self.part, self.facts = method, part, facts
        self.sight: Sight = part.sight
        self.columns, self.layout = part.sight.columns, part.sight.layout

    def no(self, reason: str) -> Verdict:
        return Verdict(method=self.method, status="INCOMPATIBLE", reason=reason)

    def needs(
        self, reason: str, mapping: dict[str, str], kept: dict[str, bool | int | float | str] | None = None
    ) -> Verdict:
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

    @property
    def what(self) -> str:
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


def _sft(case: _Case) -> Verdict:
    judge_layout = _SFT.get(case.layout)
    return judge_layout(case) if judge_layout else case.no(_why_unknown(case))


def _sft_messages(case: _Case) -> Verdict:
    how = " (from, value), converted to role and content" if case.layout == "sharegpt" else ""
    return case.ready(
        f"Conversations in the column {case.columns['messages']}{how}.", case.mapping("messages", "system")
    )


def _sft_alpaca(case: _Case) -> Verdict:
    roles = [role for role in ("instruction", "input", "output", "history") if role in case.columns]
    return case.ready(f"Alpaca ({', '.join(roles)}), converted to a user's and an assistant's message.", {})


def _sft_pairs(case: _Case) -> Verdict:
    return case.ready(f"{case.what.capitalize()}.", case.mapping("prompt", "completion", "system"))


def _sft_text(case: _Case) -> Verdict:
    text, label = case.columns["text"], case.columns.get("class")
    if label is None:
        return case.ready("Text, all of it trained.", {"text": text})
    if case.kind("class") == "text":
        reason = f"Texts with classes ({text}, {label}): this mapping learns to name the class."
        return case.needs(reason, {"prompt": text, "completion": label})
    reason = (
        f"Texts with classes ({text}, {label}): the class is no text, and can't be learnt as it is. This mapping "
        f"trains the texts alone; turn the class into words and map both (prompt: {text}) to learn it."
    )
    return case.needs(reason, {"text": text})


def _sft_preference(case: _Case) -> Verdict:
    chosen = case.columns["chosen"]
    reason = (
        f"Preference pairs ({chosen}, {case.columns['rejected']}), made for dpo or reward. For sft, the better "
        f"answer of each is what to learn."
    )
    if case.asks:
        return case.needs(reason, {**case.mapping("prompt"), "completion": chosen, **case.mapping("system")})
    chat = case.kind("chosen") != "text" or case.facts.is_transcript(chosen)
    return case.needs(reason, {"messages": chosen} if chat else {"text": chosen})


def _sft_unpaired(case: _Case) -> Verdict:
    label = case.columns["label"]
    values = case.facts.label_values(label)
    good = [value for value in sorted(values, key=lambda value: -values[value]) if value.strip().lower() in GOOD]
    if not good:
        return case.no(f"Answers marked by the column {label}, all of them bad: there is nothing to learn for sft.")
    mapping = case.mapping("messages", "prompt", "completion", "system")
    reason = (
        f"Answers marked good or bad by the column {label}, made for kto. For sft, only the good ones are to be learnt."
    )
    if len(good) > 1:
        reason += f" Good is spelled in several ways; the filter keeps rows with {good[0]!r}."
    return case.needs(reason, mapping, {label: _typed(good[0], case.kind("label"))})


def _typed(value: str, kind: str | None) -> bool | int | float | str:
    """A value that is given as text, as the kind that it has in the file."""
    if kind == "boolean":
        return value == "true"
    if kind == "number" and value[:1].isdecimal():
        return float(value) if "." in value else int(value)
    return value


def _sft_prompts(case: _Case) -> Verdict:
    answer = case.columns.get("answer") or (case.columns.get("reference") if case.kind("reference") == "text" else None)
    if answer is None:
        against = f", rewarded against {case.columns['reference']}" if "reference" in case.columns else ""
        return case.no(f"Prompts without answers to learn: made for grpo or rloo{against}.")
    reason = f"Prompts, made for grpo or rloo. For sft, {answer} holds an answer to learn.{_unshown(answer)}"
    return case.needs(reason, {**case.mapping("prompt"), "completion": answer, **case.mapping("system")})


def _unshown(answer: str) -> str:
    """What to say where the answer is one of a list of choices, which the prompt doesn't show."""
    path = parse(answer)
    if not isinstance(path, Path) or not isinstance(path.steps[-1], Path):
        return ""
    return (
        f" The mapping can't show the choices ({path.steps[0]}), as rows may have more or fewer of them: where the "
        f"prompts don't name them, write them in first."
    )


def _pairs(case: _Case) -> Verdict:
    if case.layout != "preference":
        has = f"these rows are {case.what}" if case.what else _lowered(_why_unknown(case))
        return case.no(
            f"{case.method} needs a better and a worse answer to each prompt (chosen, rejected); {has}.".replace(
                "..", "."
            )
        )
    shared = "" if case.asks else " The prompt is what both begin with."
    reason = f"Preference pairs ({case.columns['chosen']}, {case.columns['rejected']}).{shared}"
    return case.ready(reason, case.mapping("prompt", "chosen", "rejected", "system"))


def _kto(case: _Case) -> Verdict:
    if case.layout == "preference":
        made = _pairs(case)
        return made.model_copy(update={"reason": f"{made.reason} Each pair becomes a good and a bad answer."})
    if case.layout != "unpaired-preference":
        has = f"these rows are {case.what}" if case.what else _lowered(_why_unknown(case))
        return case.no(f"kto needs answers marked good or bad, or pairs of them; {has}.".replace("..", "."))
    label = case.columns["label"]
    values = case.facts.label_values(label)
    good = sum(rows for value, rows in values.items() if value.strip().lower() in GOOD)
    bad = sum(rows for value, rows in values.items() if value.strip().lower() in BAD)
    odd = sum(values.values()) - good - bad
    reason = f"Answers marked by the column {label}: {good:,} good, {bad:,} bad."
    reason += f" {odd:,} with anything else there can't be trained on." if odd else ""
    if not good or not bad:
        reason += " All have one mark: kto learns from the difference, and will learn little."
    return case.ready(reason, case.mapping("messages", "prompt", "completion", "label", "system"))


def _reward_driven(case: _Case) -> Verdict:
    if case.layout in ("text", "unknown") or (case.layout == "stepwise" and not case.asks):
        has = "running text has none" if case.layout == "text" else _lowered(_why_unknown(case))
        return case.no(f"{case.method} needs prompts; {has}.".replace("..", "."))
    if case.layout == "prompt-only":
        reference = case.columns.get("reference")
        reason = "Prompts; no column holds a reference."
        if reference:
            reason = f"Prompts, with {reference} as the reference.{_unshown(reference)}"
        return case.ready(reason, case.mapping("prompt", "reference", "system"))
    if case.layout in (*_CHATTY, "alpaca", *_PAIRS):
        mapping = case.mapping("messages", "prompt", "system")
        if case.layout in _PAIRS:
            mapping["reference"] = case.columns["completion"]
        return case.ready(_WITH_ANSWERS[case.layout], mapping)
    return case.ready(
        "Prompts; the answers aren't used.",
        case.mapping("messages", "prompt", "chosen", "rejected", "system"),
    )


def _clm(case: _Case) -> Verdict:
    if case.layout == "text":
        return case.ready("Running text, all of it trained.", {"text": case.columns["text"]})
    mapping = case.mapping("prompt", "completion")
    texts = all(
        case.kind(role) == "text" for role in ("prompt", "completion", "instruction", "output") if role in case.columns
    )
    if case.layout in (*_PAIRS, "alpaca") and texts:
        prompt = mapping["prompt"] if "{" in mapping["prompt"] else f"{{{mapping['prompt']}}}"
        reason = f"{case.what.capitalize()}, made for sft. clm trains running text: this mapping writes both as one."
        return case.needs(reason, {"text": f"{prompt}\n\n{{{mapping['completion']}}}"})
    if not case.what:
        return case.no(_why_unknown(case))
    return case.no(f"clm trains running text without a chat template; these rows are {case.what}.")


_SFT: Final[dict[str, Callable[[_Case], Verdict]]] = {
    "messages": _sft_messages,
    "sharegpt": _sft_messages,
    "alpaca": _sft_alpaca,
    "prompt-completion": _sft_pairs,
    "question-answer": _sft_pairs,
    "text": _sft_text,
    "preference": _sft_preference,
    "unpaired-preference": _sft_unpaired,
    "prompt-only": _sft_prompts,
}
_JUDGES: Final[dict[str, Callable[[_Case], Verdict]]] = {
    "sft": _sft,
    "dpo": _pairs,
    "reward": _pairs,
    "kto": _kto,
    "grpo": _reward_driven,
    "rloo": _reward_driven,
    "clm": _clm,
}


def _why_unknown(case: _Case) -> str:
    if case.layout != "unknown":
        return f"These rows are {case.what}."
    shape = case.part.groups[0].shape if case.part.groups else Shape("object")
    if blocked := obstacle(shape, case.facts):
        return blocked
    chats = [
        key
        for key, inner in shape.keys
        if key in ("messages", "conversations", "conversation") and inner.kind == "text"
    ]
    if chats:
        return f"The column {chats[0]} is text, not a list of messages; give JSON or JSONL with real lists."
    return "No column looks like messages, prompt and completion, instruction and output, or text."


def _lowered(sentence: str) -> str:
    """A sentence as it stands behind a semicolon."""
    return sentence[:1].lower() + sentence[1:]

"""Whether sft can train on rows of a layout, and with which mapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...records import Scalar, Verdict, Wanted
from .case import Case, unshown, why_unknown
from .names import mark


def judge_sft(case: Case) -> Verdict:
    """Whether sft can train on the rows."""
    judge_layout = _SFT.get(case.layout)
    return judge_layout(case) if judge_layout else case.no(why_unknown(case))


def _sft_messages(case: Case) -> Verdict:
    how = " (from, value), converted to role and content" if case.layout == "sharegpt" else ""
    return case.ready(
        f"Conversations in the column {case.columns['messages']}{how}.", case.mapping("messages", "system")
    )


def _sft_alpaca(case: Case) -> Verdict:
    roles = [role for role in ("instruction", "input", "output", "history") if role in case.columns]
    mapping = case.mapping("prompt", "completion", "system")
    return case.ready(f"Alpaca ({', '.join(roles)}), converted to a user's and an assistant's message.", mapping)


def _sft_pairs(case: Case) -> Verdict:
    return case.ready(f"{case.what.capitalize()}.", case.mapping("prompt", "completion", "system"))


def _sft_text(case: Case) -> Verdict:
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


def _sft_preference(case: Case) -> Verdict:
    chosen = case.columns["chosen"]
    reason = (
        f"Preference pairs ({chosen}, {case.columns['rejected']}), made for dpo or reward. For sft, the better "
        f"answer of each is what to learn."
    )
    if case.asks:
        return case.needs(reason, {**case.mapping("prompt"), "completion": chosen, **case.mapping("system")})
    chat = case.kind("chosen") != "text" or case.facts.is_transcript(chosen)
    return case.needs(reason, {"messages": chosen} if chat else {"text": chosen})


def _sft_unpaired(case: Case) -> Verdict:
    label = case.columns["label"]
    values = case.facts.label_values(label)
    good = [value for value in sorted(values, key=lambda value: (-values[value], value)) if mark(value)]
    if not good:
        return case.no(f"Answers marked by the column {label}, all of them bad: there is nothing to learn for sft.")
    mapping = case.mapping("messages", "prompt", "completion", "system")
    reason = (
        f"Answers marked good or bad by the column {label}, made for kto. For sft, only the good ones are to be learnt."
    )
    kinds = case.kinds("label")
    wanted: list[Scalar] = [_typed(value, kinds) for value in good]
    kept: Wanted = wanted if len(wanted) > 1 else wanted[0]
    return case.needs(reason, mapping, {label: kept})


def _typed(value: str, kinds: set[str]) -> Scalar:
    """A value that is given as text, as the file has it; of a kind that finds the text as well, where it has both."""
    if "boolean" in kinds and value == "true":
        return True
    if "number" in kinds and value[:1].isdecimal():
        return float(value) if "." in value else int(value)
    return value


def _sft_prompts(case: Case) -> Verdict:
    answer = case.columns.get("answer") or (case.columns.get("reference") if case.kind("reference") == "text" else None)
    if answer is None:
        against = f", rewarded against {case.columns['reference']}" if "reference" in case.columns else ""
        return case.no(f"Prompts without answers to learn: made for grpo or rloo{against}.")
    reason = f"Prompts, made for grpo or rloo. For sft, {answer} holds an answer to learn.{unshown(answer)}"
    return case.needs(reason, {**case.mapping("prompt"), "completion": answer, **case.mapping("system")})


_SFT: Final[dict[str, Callable[[Case], Verdict]]] = {
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

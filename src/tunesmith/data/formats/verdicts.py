"""Whether each method can train on rows of a layout, and with which mapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, get_args

from ...recipe.schema import Method
from ...records import Verdict
from .case import Case, lowered, unshown, why_unknown
from .detection import Part
from .facts import Facts
from .for_sft import judge_sft
from .names import mark

METHODS: Final[tuple[str, ...]] = get_args(Method)
_CHATTY: Final = ("messages", "sharegpt")
_PAIRS: Final = ("prompt-completion", "question-answer")
_TALK: Final = "Conversations: what precedes the last answer is the prompt, the last answer the reference."
_WITH_ANSWERS: Final = {
    "messages": _TALK,
    "sharegpt": _TALK,
    "alpaca": "Instructions as prompts, with their outputs as references.",
    "prompt-completion": "Prompts, with their completions as references.",
    "question-answer": "Questions as prompts, with their answers as references.",
}


def judge(method: str, part: Part, facts: Facts) -> Verdict:
    """Whether `method` can train on the rows of `part`."""
    return _JUDGES[method](Case(method, part, facts))


def _pairs(case: Case) -> Verdict:
    if case.layout != "preference":
        has = f"these rows are {case.what}" if case.what else lowered(why_unknown(case))
        return case.no(
            f"{case.method} needs a better and a worse answer to each prompt (chosen, rejected); {has}.".replace(
                "..", "."
            )
        )
    shared = "" if case.asks else " The prompt is what both begin with."
    reason = f"Preference pairs ({case.columns['chosen']}, {case.columns['rejected']}).{shared}"
    return case.ready(reason, case.mapping("prompt", "chosen", "rejected", "system"))


def _kto(case: Case) -> Verdict:
    if case.layout == "preference":
        made = _pairs(case)
        return made.model_copy(update={"reason": f"{made.reason} Each pair becomes a good and a bad answer."})
    if case.layout != "unpaired-preference":
        has = f"these rows are {case.what}" if case.what else lowered(why_unknown(case))
        return case.no(f"kto needs answers marked good or bad, or pairs of them; {has}.".replace("..", "."))
    label = case.columns["label"]
    values = case.facts.label_values(label)
    good = sum(rows for value, rows in values.items() if mark(value))
    bad = sum(rows for value, rows in values.items() if mark(value) is False)
    odd = sum(values.values()) - good - bad
    bare = case.part.rows - sum(values.values())
    reason = f"Answers marked by the column {label}: {good:,} good, {bad:,} bad."
    reason += f" {odd:,} with anything else there can't be trained on." if odd else ""
    reason += f" {bare:,} without a mark can't be trained on." if bare > 0 else ""
    if not good or not bad:
        reason += " All have one mark: kto learns from the difference, and will learn little."
    return case.ready(reason, case.mapping("messages", "prompt", "completion", "label", "system"))


def _reward_driven(case: Case) -> Verdict:
    if case.layout in ("text", "unknown") or (case.layout == "stepwise" and not case.asks):
        has = "running text has none" if case.layout == "text" else lowered(why_unknown(case))
        return case.no(f"{case.method} needs prompts; {has}.".replace("..", "."))
    if case.layout == "prompt-only":
        reference = case.columns.get("reference")
        reason = "Prompts; no column holds a reference."
        if reference:
            reason = f"Prompts, with {reference} as the reference.{unshown(reference)}"
        return case.ready(reason, case.mapping("prompt", "reference", "system"))
    if case.layout in (*_CHATTY, "alpaca", *_PAIRS):
        mapping = case.mapping("messages", "prompt", "system")
        if case.layout in (*_PAIRS, "alpaca"):
            mapping["reference"] = case.columns["output" if case.layout == "alpaca" else "completion"]
        return case.ready(_WITH_ANSWERS[case.layout], mapping)
    return case.ready(
        "Prompts; the answers aren't used.",
        case.mapping("messages", "prompt", "chosen", "rejected", "system"),
    )


def _clm(case: Case) -> Verdict:
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
        return case.no(why_unknown(case))
    return case.no(f"clm trains running text without a chat template; these rows are {case.what}.")


_JUDGES: Final[dict[str, Callable[[Case], Verdict]]] = {
    "sft": judge_sft,
    "dpo": _pairs,
    "reward": _pairs,
    "kto": _kto,
    "grpo": _reward_driven,
    "rloo": _reward_driven,
    "clm": _clm,
}

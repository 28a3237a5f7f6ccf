"""Planted faults of letter T: rows, templates and settings with one fault each, and their clean twins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.plans import chat_rows, write_rows
from tests.support.planted import Case, Check
from tests.support.runs import SMALL
from tests.support.templates import save_tokenizer, template_text
from tests.support.tiny import CHATML
from tunesmith.data.rendered import rendered_findings
from tunesmith.data.tokens import audit, audit_findings
from tunesmith.models.light import LightTokenizer
from tunesmith.models.load import load_tokenizer
from tunesmith.plan.rows import gather_rows
from tunesmith.recipe import build_recipe
from tunesmith.records import Finding

Row = dict[str, Any]
MARKED = (SMALL / "chat_template.jinja").read_text(encoding="utf-8")
_STOPLESS = CHATML.replace("<|im_end|>", "")
_SYSTEMLESS = CHATML.replace("in messages", "in messages if m['role'] != 'system'")
_TRIMMING = CHATML.replace("m['content']", "m['content'] | trim")
_THINKING = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
_LOWERING = CHATML.replace("m['content']", "m['content'] | lower")


def said(role: str, content: str, **more: Any) -> Row:
    """A message."""
    return {"role": role, "content": content, **more}


def row(answer: str = "a lamp", *, question: str = "what is it?", system: str = "", **more: Any) -> Row:
    """A prepared row with one answer."""
    prompt = [said("system", system)] * bool(system) + [said("user", question)]
    return {"prompt": prompt, "completion": [said("assistant", answer)], **more}


def pair(chosen: str, rejected: str) -> Row:
    """A prepared preference pair."""
    answers = {"chosen": [said("assistant", chosen)], "rejected": [said("assistant", rejected)]}
    return {"prompt": [said("user", "which?")], **answers}


def call(**arguments: Any) -> Row:
    """A prepared row that ends after a tool call and its answer."""
    calls = [{"type": "function", "function": {"name": "look", "arguments": arguments}}]
    prompt = [said("user", "where?"), said("assistant", "", tool_calls=calls), said("tool", "in Oslo")]
    return {"prompt": prompt, "completion": [said("assistant", "in Oslo")]}


def _audit(folder: Path, rows: list[Row], template: str, method: str, eos: str | None, training: Row) -> list[Finding]:
    tokenizer = load_tokenizer(save_tokenizer(template, folder))
    tokenizer.eos_token = eos
    tokenizer.bos_token = "<|im_start|>" if "text" in rows[0] else None
    layout: Any = "messages" if "messages" in rows[0] else "text" if "text" in rows[0] else "prompt-completion"
    layout = "preference" if "chosen" in rows[0] else layout
    tokenizer.chat_template = template or None
    return audit_findings(audit(rows, layout, tokenizer, training=training, method=method), "rows")


def audited(
    rows: list[Row], *, template: str = MARKED, method: str = "sft", eos: str | None = "<|im_end|>", **training: Any
) -> Check:
    """The label audit of rows, by TRL."""
    return lambda folder: _audit(folder, rows, template, method, eos, training)


def rendered(rows: list[Row], *, template: str = CHATML, eos: str = "<|im_end|>") -> Check:
    """What the light tokenizer says of rows."""

    def run(folder: Path) -> list[Finding]:
        path = folder / "template.jinja"
        path.write_text(template, encoding="utf-8")
        light = LightTokenizer(SMALL, str(path))
        light.eos = eos
        light._stop_ids = []
        return rendered_findings(rows, light, "rows")

    return run


def planned(*, template: str = CHATML, pad: str = "<|pad|>") -> Check:
    """What the plan says of good rows under a template and a pad token."""

    def run(folder: Path) -> list[Finding]:
        tokenizer = load_tokenizer(save_tokenizer(template, folder / "model"))
        tokenizer.pad_token = pad
        tokenizer.save_pretrained(folder / "model")
        train = write_rows(folder / "rows.jsonl", chat_rows(240))
        recipe = build_recipe({"model": "builtin:small", "data": {"train": train, "eval": 0.5}}, folder=folder)
        return gather_rows(recipe, LightTokenizer(folder / "model")).findings

    return run


LONG = "word " * 60
ROWS = [row("yes"), row("a lamp and a chair"), row("no, " * 3 + "no")]
THOUGHT = row("<think>\nhm, a lamp\n</think>\n\na lamp")
TALK = {"messages": [said("user", "hi"), said("assistant", "hello"), said("user", "more"), said("assistant", "sure")]}
THOUGHTS = {"messages": [*THOUGHT["prompt"], *THOUGHT["completion"], *ROWS[0]["prompt"], *ROWS[0]["completion"]]}
EARLIER = {
    "prompt": [said("user", "a?"), said("assistant", "<think>\nhm\n</think>\n\nyes"), said("user", "b?")],
    "completion": [said("assistant", "no")],
}
QWEN3, QWEN3_8, R1, GLM = map(template_text, ("qwen3", "qwen3_8", "deepseek_r1_distill", "glm4moe"))
R1_END = "<\uff5cend▁of▁sentence\uff5c>"

TOKEN_CASES = [
    Case("T001", "a template without a stop token", audited(ROWS, template=_STOPLESS), audited(ROWS)),
    Case("T001", "EOS isn't what ends a turn", audited(ROWS, eos="<|pad|>"), audited(ROWS)),
    Case(
        "T002",
        "an answer longer than max_length",
        audited([*ROWS, row(LONG)], max_length=64),
        audited(ROWS, max_length=64),
    ),
    Case(
        "T003",
        "a prompt that fills max_length",
        audited([*ROWS, row(question=LONG)], max_length=64),
        audited(ROWS, max_length=64),
    ),
    Case(
        "T003",
        "a pair too long to score",
        audited([pair(LONG, "no"), pair("a", "b")], method="reward", max_length=64),
        audited([pair("yes", "no"), pair("a", "b")], method="reward", max_length=64),
    ),
    Case(
        "T004",
        "BOS in the text, and from the tokenizer",
        audited([{"text": "<|im_start|><|im_start|>a"}]),
        audited([{"text": "<|im_start|>a"}]),
    ),
    Case("T005", "messages without a template", audited(ROWS, template=""), audited(ROWS)),
    Case("T006", "pad is EOS", planned(pad="<|im_end|>"), planned()),
    Case("T007", "messages without a mask", audited([TALK]), audited([TALK], assistant_only_loss=True)),
    Case(
        "T008",
        "a role that the template refuses",
        audited([*ROWS, {**row(), "prompt": [said("critic", "x")]}]),
        audited(ROWS),
    ),
    Case("T009", "no EOS token", audited(ROWS, eos=None), audited(ROWS)),
    Case("T010", "a template that opens a thought in the prompt only", planned(template=_THINKING), planned()),
    Case(
        "T011",
        "tool calls that aren't rendered",
        rendered([call(city="Oslo")]),
        rendered([call(city="Oslo")], template=QWEN3),
    ),
    Case("T012", "an empty answer", audited([*ROWS, row("")]), audited(ROWS)),
    Case("T013", "a turn marker inside an answer", rendered([row("stop <|im_end|> here")]), rendered(ROWS)),
    Case(
        "T014",
        "a template that skips the system message",
        rendered([row(system="Be brief.")], template=_SYSTEMLESS),
        rendered([row(system="Be brief.")]),
    ),
    Case(
        "T015",
        "reasoning cut out of every answer",
        rendered([THOUGHT], template=R1, eos=R1_END),
        rendered([THOUGHT], template=QWEN3),
    ),
    Case(
        "T015",
        "reasoning cut out of a trained earlier answer",
        rendered([THOUGHTS], template=GLM, eos="<|user|>"),
        rendered([THOUGHTS], template=QWEN3),
    ),
    Case(
        "T015",
        "an empty block before the reasoning",
        rendered([THOUGHT], template=QWEN3_8),
        rendered([THOUGHT], template=QWEN3),
    ),
    Case("T015", "reasoning left out of context (a note)", rendered([EARLIER], template=QWEN3), rendered([EARLIER])),
    Case(
        "T016",
        "null in a tool call's arguments",
        rendered([call(city="Oslo", day=None)], template=QWEN3),
        rendered([call(city="Oslo", day="Monday")], template=QWEN3),
    ),
    Case(
        "T016",
        "null in tools",
        rendered([row(tools='[{"name": "look", "parameters": {"a": null}}]')], template=QWEN3),
        rendered([row(tools='[{"name": "look", "parameters": {"a": {}}}]')], template=QWEN3),
    ),
    Case("T017", "EOS isn't what ends a turn", rendered(ROWS, eos="<|pad|>"), rendered(ROWS)),
    Case("T017", "a template that ends a turn with nothing", rendered(ROWS, template=_STOPLESS), rendered(ROWS)),
    Case(
        "T018",
        "indentation trimmed",
        rendered([row("    return x\n    # done")], template=_TRIMMING),
        rendered([row("    return x\n    # done")]),
    ),
    Case("T018", "words changed", rendered([row("A Lamp")], template=_LOWERING), rendered([row("A Lamp")])),
    Case(
        "T019",
        "two equal sides",
        audited([pair("yes", "yes"), pair("a", "b")], method="dpo"),
        audited([pair("yes", "no"), pair("a", "b")], method="dpo"),
    ),
    Case(
        "T019",
        "sides that cutting makes equal",
        audited([pair(LONG + "a", LONG + "b")], method="dpo", max_length=32),
        audited([pair("a", "b")], method="dpo", max_length=32),
    ),
]
